// Matrices that a checkpoint stores as one, as the linear layers that they consist of.
#pragma once

#include <span>

#include "io/container/checkpoint.h"
#include "model/config.h"

namespace mica {

// Gives the parts of fused matrices and of their biases the names that `names` has for their linear layers; what
// the checkpoint stores under those names already stays. Throws Error for a fused tensor of another shape.
void SplitFused(Checkpoint& checkpoint, const ModelConfig& config, const TensorNames& names,
                std::span<const FusedLinears> fused);

}  // namespace mica
