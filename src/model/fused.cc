#include "model/fused.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "format/compressed_tensors/parts.h"
#include "model/weights.h"

namespace mica {
namespace {

constexpr size_t kCodesOfWholeWords = 32;  // of any width

// Rows [first, first + rows) of a matrix of compressed-tensors, as those of `part`.
std::shared_ptr<const CompressedTensorsParts> RowsOf(const CompressedTensorsParts& fused, size_t first,
                                                     size_t rows, const TensorView& part) {
  auto parts = std::make_shared<CompressedTensorsParts>(fused);
  parts->name = part.name;
  parts->rows = rows;
  const auto cut = [&](std::span<const std::byte>& bytes, size_t count) {
    const size_t each = bytes.size() / count;
    bytes = bytes.subspan(first * each, rows * each);
  };
  cut(parts->words, fused.rows);
  cut(parts->scales, fused.rows);
  if (fused.zeros.empty()) return parts;
  // Zero points are packed along the rows.
  const size_t whole =
      fused.zero_packing == CodePacking::kDense ? kCodesOfWholeWords : 32 / static_cast<size_t>(fused.bits);
  if (first % whole != 0) {
    Fail(
        "{}: the rows of {} begin at row {} of the matrix that holds them, inside a word of zero points; "
        "give a checkpoint whose parts have multiples of {} rows",
        part.file, part.name, first, whole);
  }
  const size_t row_bytes = 4 * fused.groups();
  const size_t begin = WordsOf(first, fused.bits, fused.zero_packing),
               count = WordsOf(rows, fused.bits, fused.zero_packing);
  parts->zeros = fused.zeros.subspan(begin * row_bytes, count * row_bytes);
  return parts;
}

// Appends the parts of a fused tensor, whose rows are those of its kinds one behind the other.
void AddParts(const TensorView& fused, const FusedLinears& linears, size_t layer, const ModelConfig& config,
              const TensorNames& names, bool bias, std::vector<TensorView>& tensors) {
  std::vector<uint64_t> expected = {0};
  for (const LinearKind kind : linears.kinds) expected[0] += LinearShape(config, kind).rows;
  if (!bias) expected.push_back(LinearShape(config, linears.kinds.front()).cols);
  if (fused.shape != expected) {
    Fail(
        "{}: tensor {} has shape {}, expected {}, the rows of {} linear layers; the checkpoint does not "
        "match its configuration",
        fused.file, fused.name, ShapeText(fused.shape), ShapeText(expected), linears.kinds.size());
  }
  const size_t row_bytes = fused.data.size() / expected[0];
  size_t first = 0;
  for (const LinearKind kind : linears.kinds) {
    const size_t rows = LinearShape(config, kind).rows;
    const std::string module = LinearTensorName(names, layer, kind);
    TensorView part = fused;
    part.name = bias ? BiasName(module) : WeightName(module);
    part.shape[0] = rows;
    part.data = fused.data.subspan(first * row_bytes, rows * row_bytes);
    if (fused.integers != nullptr) part.integers = RowsOf(*fused.integers, first, rows, part);
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
        if (bias || tensor.name == WeightName(module))
          AddParts(tensor, linears, layer, config, names, bias, tensors);
      }
    }
    if (tensors.size() == before) tensors.push_back(tensor);
  }
  checkpoint.Adopt(std::move(tensors));
}

}  // namespace mica
