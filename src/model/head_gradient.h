// The loss at the end of the backward pass.
#pragma once

#include <cstdint>
#include <span>

#include "device/precision.h"
#include "device/tensor.h"
#include "model/weights.h"
#include "ops/product/product.h"

namespace mica {

// gradient [tokens, hidden] = d(sum of negative log likelihoods) / dx for the residual stream x [tokens,
// hidden] before the final norm, targets[t] the label of token t, negative: none. With `sample`, a label is
// drawn from the model's distribution wherever targets[t] is not negative: uniforms[t] in [0, 1) picks it
// from the cumulative distribution in the order of ids. Returns the summed negative log likelihood of
// `targets` in either case. The head is prepared in slices, as in OutputHead.
double HeadGradient(const ModelWeights& weights, const Arithmetic& arithmetic, ConstTensor x,
                    std::span<const int32_t> targets, bool sample, std::span<const double> uniforms,
                    Tensor gradient);

}  // namespace mica
