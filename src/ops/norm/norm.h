// Normalisation of rows by their root mean square (RMSNorm, Zhang & Sennrich 2019), and its gradient.
#pragma once

#include "device/tensor.h"

namespace mica {

// out[t, i] = x[t, i] / sqrt(mean_i(x[t]^2) + epsilon) * weight[i], rounded to the type of out. x: [tokens,
// n] FP32; weight: [1, n] FP32; out: [tokens, n] FP32 or BF16.
void RmsNorm(ConstTensor x, ConstTensor weight, float epsilon, Tensor out);

// With y = RmsNorm(x) and y_gradient what the loss feels of it: gradient += (dy/dx)^T y_gradient. All
// [tokens, n] FP32.
void AddRmsNormGradient(ConstTensor x, ConstTensor weight, ConstTensor y_gradient, float epsilon,
                        Tensor gradient);

}  // namespace mica
