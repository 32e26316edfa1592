// All that a GGUF file of a model consists of, before its first byte is written: for whoever writes one, with
// the types of its matrices as they want them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/container/gguf.h"
#include "model/config.h"
#include "model/gguf/names.h"

namespace mica {

// A tensor, or a part of one that the file stores as one with others: parts follow each other, and the first
// has the whole's specification.
struct GgufModelTensor {
  GgufTensorSpec spec;  // of later parts without a name: their rows and columns
  // What it is and what the checkpoint calls it; none and empty for factors of the rotary embedding.
  std::optional<ModuleTensor> place;
  std::string source;
  // Where rows of the source are stored (rows.h: ArrangeRows); empty: in their order.
  std::vector<uint32_t> row_order;
  std::vector<float> factors = {};  // what stands in a tensor without a place

  bool later_part() const { return spec.name.empty(); }
};

struct GgufModelLayout {
  std::vector<GgufKey> keys;
  std::vector<GgufModelTensor> tensors;  // in the order in which they are to be written

  std::vector<GgufTensorSpec> Specs() const;
};

struct GgufLayoutSettings {
  std::string name;                     // general.name
  std::vector<GgufKey> tokenizer_keys;  // vocabulary.h
  // The type of a matrix: of a linear layer, of the embedding or of the head. Rows must be whole blocks.
  std::function<GgmlType(const TensorPlace&)> type_of;
  // Whether a linear layer has a bias; empty: as the architecture says.
  std::function<bool(size_t layer, LinearKind kind)> has_bias = {};
};

// Norms, biases and rope factors are F32. general.file_type, a label, is that of the type which most weights
// of linear layers have. Throws Error for a model that GGUF files have no architecture for.
GgufModelLayout MakeGgufLayout(const ModelConfig& config, const GgufLayoutSettings& settings);

}  // namespace mica
