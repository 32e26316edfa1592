// Products of activations with prepared weights: activations are streamed past, in tiles of fixed size that
// one thread each multiplies, so that results do not depend on the number of threads.
#pragma once

#include "device/tensor.h"
#include "ops/product/prepared_weights.h"

namespace mica {

// y[t, o] = sum_i x[t, i] w[o, i] + bias[o]. x: [tokens, inputs] of the type of w's operands; bias: [1,
// outputs] FP32 or empty; y: [tokens, outputs] FP32.
void Multiply(ConstTensor x, const PreparedWeights& w, ConstTensor bias, Tensor y);
// y += the same.
void MultiplyAdd(ConstTensor x, const PreparedWeights& w, ConstTensor bias, Tensor y);

}  // namespace mica
