// A GGUF checkpoint as one in the Hugging Face layout.
#pragma once

#include "io/container/checkpoint.h"
#include "model/config.h"

namespace mica {

// Gives the tensors of a GGUF checkpoint the names and the order of rows that `config` (ReadGgufConfig) has
// for them: matrices of q and k get a TensorView::row_order, their biases are copied. What only GGUF files
// have (rope_freqs.weight, which is in `config`) is left out. Throws Error naming a tensor, as the file calls
// it, that is missing or that the architecture as mica computes it has no place for, and norms and biases in
// blocks. Shapes and types are for ModelWeights to check.
void AdoptGguf(Checkpoint& checkpoint, const ModelConfig& config);

}  // namespace mica
