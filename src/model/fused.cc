#include "model/fused.h"

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "model/weights.h"

namespace mica {
namespace {

// Appends the parts of a fused tensor, whose rows are those of its kinds one behind the other.
void AddParts(const TensorView& fused, const FusedLinears& linears, size_t layer, const ModelConfig& config,
              const TensorNames& names, bool bias, std::vector<TensorView>& tensors) {
  std::vector<uint64_t> expected = {0};
  for (const LinearKind kind : linears.kinds) expected[0] += LinearShape(config, kind).rows;
  if (!bias) expected.push_back(LinearShape(config, linears.kinds.front()).cols);
  if (fused.shape != expected) {
    Fail("{}: tensor {} has shape {}, expected {}, the rows of {} linear layers; the checkpoint does not match "
         "its configuration",
         fused.file, fused.name, ShapeText(fused.shape), ShapeText(expected), linears.kinds.size());
  }
  if (fused.integers != nullptr)
    Fail("{}: tensor {} is quantised as one matrix, which is not supported", fused.file, fused.name);
  const size_t row_bytes = fused.data.size() / expected[0];
  size_t first = 0;
  for (const LinearKind kind : linears.kinds) {
    const size_t rows = LinearShape(config, kind).rows;
    const std::string module = LinearTensorName(names, layer, kind);
    TensorView part = fused;
    part.name = bias ? BiasName(module) : WeightName(module);
    part.shape[0] = rows;
    part.data = fused.data.subspan(first * row_bytes, rows * row_bytes);
    tensors.push_back(std::move(part));
    first += rows;
  }
}

}  // namespace

void SplitFused(Checkpoint& checkpoint, const ModelConfig& config, const TensorNames& names,
                std::span<const FusedLinears> fused) {
  if (fused.empty()) return;
  std::vector<TensorView> tensors;
  for (const TensorView& tensor : checkpoint.tensors()) {
    const size_t before = tensors.size();
    for (const FusedLinears& linears : fused) {
      for (size_t layer = 0; layer < config.layers; ++layer) {
        const std::string module = LayerName(names, layer, linears.part);
        const bool bias = tensor.name == BiasName(module);
        if (bias || tensor.name == WeightName(module)) AddParts(tensor, linears, layer, config, names, bias, tensors);
      }
    }
    if (tensors.size() == before) tensors.push_back(tensor);
  }
  checkpoint.Adopt(std::move(tensors));
}

}  // namespace mica
