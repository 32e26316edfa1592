// What every writer of a model's GGUF file does: the facts of its layout, norms and biases, rows in the file's
// order.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "io/container/gguf.h"
#include "model/gguf/layout.h"
#include "model/weights.h"

namespace mica {

// Name, tokenizer and biases of the model that was opened from `model`; type_of is left to the caller.
GgufLayoutSettings LayoutSettingsOf(const ModelWeights& weights, const std::filesystem::path& model);

// Writes a tensor that is no matrix (norm, bias, rope factors), FP32 in the order of the file; false for a
// matrix, of which nothing is written.
bool WriteGgufVector(const ModelWeights& weights, const GgufModelLayout& layout, const GgufModelTensor& tensor,
                     GgufWriter& writer);

// Writes the rows of a matrix, all of them, where the file has them.
void WriteGgufRows(std::span<const std::byte> rows, const GgufModelTensor& tensor, GgufWriter& writer);

}  // namespace mica
