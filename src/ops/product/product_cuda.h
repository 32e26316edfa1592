// Products on a CUDA device, for kernels that go on with their results; included by *_cuda.cu only.
#pragma once

#include "device/tensor.h"
#include "ops/product/prepared_weights.h"

namespace mica::cuda {

// y[t, o] = beta * y[t, o] + sum_i x[t, i] w[o, i]. x: [tokens, inputs], w: [outputs, inputs], both FP32 or
// BF16; y: [tokens, outputs] FP32. FP32 sums. With beta 0, y is not read.
void Product(ConstTensor x, ConstTensor w, float beta, Tensor y);

}  // namespace mica::cuda
