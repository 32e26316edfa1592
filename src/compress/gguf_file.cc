#include "compress/gguf_file.h"

#include <map>
#include <string>
#include <variant>

#include "base/error.h"
#include "base/system.h"
#include "compress/provenance.h"
#include "io/container/checkpoint.h"
#include "io/packed/packed_checkpoint.h"
#include "io/packed/stored_matrix.h"
#include "model/gguf/layout.h"
#include "model/gguf/writing.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kAlignment = 32;  // of tensors

GgmlType PlainType(DType dtype) { return dtype == DType::kBF16 ? GgmlType::kBF16 : GgmlType::kF16; }

// The module that a matrix of the layout is in the checkpoint.
std::string ModuleOf(const ModelConfig& config, const TensorPlace& place) {
  if (place.role == TensorRole::kEmbedding) return config.family->names.embedding;
  if (place.role == TensorRole::kHead) return config.family->names.head;
  return LinearTensorName(*config.family, *place.layer, place.kind);
}

// The matrices of a run, wherever they stand.
class Shards {
 public:
  explicit Shards(std::span<const fs::path> paths) {
    for (const fs::path& path : paths) checkpoints_.push_back(Checkpoint::Open(path));
    for (const Checkpoint& checkpoint : checkpoints_) {
      for (const std::string& name : PackedNames(checkpoint)) of_matrix_[name] = &checkpoint;
      for (const TensorView& tensor : checkpoint.tensors()) of_tensor_[tensor.name] = &checkpoint;
    }
  }

  GgmlType TypeOf(const std::string& module) const {
    if (const auto found = of_matrix_.find(module); found != of_matrix_.end())
      return std::get<GgufParts>(OpenPacked(*found->second, module, false).parts).type;
    return PlainType(Plain(module).second.dtype);
  }

  void Write(const std::string& module, const GgufModelTensor& tensor, GgufWriter& writer) const {
    if (const auto found = of_matrix_.find(module); found != of_matrix_.end()) {
      const StoredMatrix stored = OpenPacked(*found->second, module);
      WriteGgufRows(std::get<GgufParts>(stored.parts).blocks, tensor, writer);
      return stored.Release(*found->second);
    }
    const auto& [checkpoint, plain] = Plain(module);
    VerifyPlain(checkpoint, plain);
    WriteGgufRows(plain.data, tensor, writer);
    checkpoint.Release(plain);
  }

 private:
  std::pair<const Checkpoint&, const TensorView&> Plain(const std::string& module) const {
    const std::string name = WeightName(module);
    const auto found = of_tensor_.find(name);
    if (found == of_tensor_.end()) Fail("no shard holds {}; delete the directory to begin anew", name);
    return {*found->second, found->second->Get(name)};
  }

  std::vector<Checkpoint> checkpoints_;
  std::map<std::string, const Checkpoint*> of_matrix_, of_tensor_;
};

GgufModelLayout LayoutOf(const ModelWeights& weights, const fs::path& model, const CompressionRecord& record,
                         std::function<GgmlType(const TensorPlace&)> type_of) {
  GgufLayoutSettings settings = LayoutSettingsOf(weights, model);
  settings.type_of = std::move(type_of);
  GgufModelLayout layout = MakeGgufLayout(weights.config(), settings);
  for (auto& [name, value] : ProvenanceOf(record)) layout.keys.push_back({name, value});
  return layout;
}

}  // namespace

uint64_t GgufBytesBesides(const ModelWeights& weights, const fs::path& model, const Ends* ends,
                          const CompressionRecord& record) {
  const auto left_out = [&](const GgufModelTensor& tensor) {
    if (!tensor.place || tensor.place->bias) return false;
    const TensorRole role = tensor.place->place.role;
    return role == TensorRole::kLinear ||
           (ends == nullptr && (role == TensorRole::kEmbedding || role == TensorRole::kHead));
  };
  const GgufModelLayout layout = LayoutOf(weights, model, record, [&](const TensorPlace& place) {
    return place.role == TensorRole::kLinear || ends == nullptr
               ? GgmlType::kF32
               : ends->TypeOf(ModuleOf(weights.config(), place));
  });
  uint64_t bytes = GgufFileBytes(layout.Specs(), layout.keys);
  for (const GgufModelTensor& tensor : layout.tensors) {
    if (!left_out(tensor) || tensor.later_part()) continue;
    const uint64_t of_matrix = SpecBytes(tensor.spec), rows = tensor.spec.shape[0];
    bytes -= (of_matrix + kAlignment - 1) / kAlignment * kAlignment;
    if (rows % kAlignment != 0) bytes += kAlignment - 1;  // the padding that other types may need
  }
  return bytes;
}

void WriteGgufFile(const ModelWeights& weights, const fs::path& model, std::span<const fs::path> paths,
                   const CompressionRecord& record, const fs::path& out) {
  const ModelConfig& config = weights.config();
  const Shards shards(paths);
  const GgufModelLayout layout = LayoutOf(weights, model, record, [&](const TensorPlace& place) {
    return shards.TypeOf(ModuleOf(config, place));
  });
  GgufWriter writer(out, layout.Specs(), layout.keys);
  for (const GgufModelTensor& tensor : layout.tensors) {
    ThrowIfInterrupted();
    if (!WriteGgufVector(weights, layout, tensor, writer))
      shards.Write(ModuleOf(config, tensor.place->place), tensor, writer);
  }
  writer.Commit();
}

}  // namespace mica
