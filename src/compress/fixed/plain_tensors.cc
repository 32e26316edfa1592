#include "compress/fixed/plain_tensors.h"

#include "base/context.h"
#include "base/error.h"
#include "base/finite.h"
#include "base/half.h"
#include "base/threads.h"
#include "compress/fixed/solver.h"
#include "model/family/family.h"
#include "ops/codes/codes.h"

namespace mica {

void CopyTensor(const Checkpoint& checkpoint, const TensorView& tensor, PackedShard& shard) {
  shard.AddPlain({tensor.name, tensor.dtype, tensor.shape}, {tensor.data.begin(), tensor.data.end()});
  checkpoint.Release(tensor);
}

void AddRounded(const Checkpoint& checkpoint, const std::string& name, int bits, size_t group_size,
                PackedShard& shard) {
  const TensorView& tensor = checkpoint.Get(WeightName(name));
  if (bits == 16 && (tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16))
    return CopyTensor(checkpoint, tensor, shard);
  if (tensor.shape.size() != 2)
    Fail("{}: tensor {} has shape {}, expected a matrix", tensor.file, tensor.name, ShapeText(tensor.shape));
  Matrix<float> w(tensor.shape[0], tensor.shape[1]);
  ReadFloats(tensor, 0, {w.data(), w.size()});
  checkpoint.Release(tensor);
  const std::string where = fmt::format("{}: tensor {}", tensor.file, tensor.name);
  CheckFinite(w, where);
  if (bits < 16)
    return shard.Add(name, InContext(where, [&] { return Pack(RoundToNearest(w, bits, group_size)); }));
  CheckFitsHalf(w, where);
  std::vector<std::byte> bytes(w.size() * sizeof(F16));
  F16* values = reinterpret_cast<F16*>(bytes.data());
  ParallelFor(w.rows(), [&](size_t r) {
    for (size_t c = 0; c < w.cols(); ++c) values[r * w.cols() + c] = ToF16(w(r, c));
  });
  shard.AddPlain({tensor.name, DType::kF16, tensor.shape}, std::move(bytes));
}

}  // namespace mica
