#include "model/gguf/adopt.h"

#include <memory>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "model/fused.h"
#include "model/gguf/architecture.h"
#include "model/gguf/keys.h"
#include "model/gguf/names.h"
#include "model/gguf/rows.h"

namespace mica {
namespace {

// The values of a bias in the order of Hugging Face.
std::vector<std::byte> InOrder(const TensorView& bias, const std::vector<uint32_t>& order) {
  const size_t bytes = DTypeBytes(bias.dtype);
  std::vector<std::byte> values(bias.data.size());
  for (size_t r = 0; r < order.size(); ++r)
    std::copy_n(bias.data.data() + order[r] * bytes, bytes, values.data() + r * bytes);
  return values;
}

// The weights of a norm as Hugging Face stores them: GGUF files have the factors.
std::vector<std::byte> WithoutOffset(const TensorView& norm, float offset) {
  std::vector<float> values(norm.elements());
  ReadFloats(norm, 0, values);
  for (float& value : values) value -= offset;
  const std::span<const std::byte> bytes = std::as_bytes(std::span<const float>(values));
  return {bytes.begin(), bytes.end()};
}

void CheckComplete(const Checkpoint& checkpoint, const GgufArchitecture& architecture,
                   const ModelConfig& config) {
  const TensorNames& names = architecture.names;
  const auto check = [&](const std::string& name) {
    if (checkpoint.Find(name) != nullptr) return;
    Fail("{}: tensor {} is missing; a {} model of {} layers has it, fetch the file again",
         GgufFileName(checkpoint), name, architecture.name, config.layers);
  };
  check(WeightName(names.embedding));
  check(WeightName(names.final_norm));
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const NormKind norm : kNormKinds) {
      if (config.Has(norm)) check(WeightName(NormTensorName(names, layer, norm)));
    }
    for (const LinearKind kind : kLinearKinds) check(WeightName(LinearTensorName(names, layer, kind)));
  }
}

}  // namespace

void AdoptGguf(Checkpoint& checkpoint, const ModelConfig& config) {
  const GgufArchitecture& architecture = ReadGgufArchitecture(checkpoint);
  SplitFused(checkpoint, config, architecture.names, architecture.fused);
  CheckComplete(checkpoint, architecture, config);
  std::vector<TensorView> tensors;
  for (const TensorView& stored : checkpoint.tensors()) {
    if (IsRopeFactors(stored.name)) continue;
    const std::optional<ModuleTensor> place = ModuleTensorOf(architecture.names, stored.name);
    if (!place || place->place.layer.value_or(0) >= config.layers ||
        (place->place.role == TensorRole::kNorm && !config.Has(place->place.norm))) {
      Fail("{}: tensor {} has no place in a {} model of {} layers as it is computed; it is of a kind that is not "
           "supported",
           stored.file, Printable(stored.name), architecture.name, config.layers);
    }
    if (stored.shape.size() < 2 && stored.blocks != nullptr) {
      Fail("{}: tensor {} has dtype {}, expected F32, F16 or BF16 of what is no matrix", stored.file,
           Printable(stored.name), TypeName(stored));
    }
    TensorView tensor = stored;
    tensor.name = TensorNameOf(config.family->names, *place);
    const TensorRole role = place->place.role;
    if (config.family->norm_offset != 0.0f && (role == TensorRole::kNorm || role == TensorRole::kFinalNorm)) {
      tensor.dtype = DType::kF32;
      tensor.data = checkpoint.Keep(WithoutOffset(stored, config.family->norm_offset));
    }
    if (role == TensorRole::kLinear) {
      std::vector<uint32_t> order = GgufRowOrder(architecture, config, place->place.kind);
      const bool fits = !order.empty() && !stored.shape.empty() && stored.shape[0] == order.size();
      if (fits && place->bias && stored.shape.size() == 1) {
        tensor.data = checkpoint.Keep(InOrder(stored, order));
      } else if (fits && !place->bias && stored.shape.size() == 2) {
        tensor.row_order = std::make_shared<const std::vector<uint32_t>>(std::move(order));
      }
    }
    tensors.push_back(std::move(tensor));
  }
  checkpoint.Adopt(std::move(tensors));
}

}  // namespace mica
