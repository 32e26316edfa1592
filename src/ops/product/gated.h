// The products of the gated MLP, with the activation on their tiles.
#pragma once

#include "device/tensor.h"
#include "ops/activation/activation.h"
#include "ops/product/projection.h"

namespace mica {

// out[t] = activation(x[t] gate^T + bias) (x[t] up^T + bias) (ops/activation/activation.h), rounded once to the
// type of out. x: [tokens, inputs] of the type of the weights' operands; out: [tokens, outputs] FP32 or BF16.
void MultiplyGated(ConstTensor x, const Linear& gate, const Linear& up, Activation activation, Tensor out);

}  // namespace mica
