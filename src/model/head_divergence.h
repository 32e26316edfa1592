// How far the next-token distributions of two models are apart.
#pragma once

#include <cstdint>
#include <span>

#include "device/tensor.h"
#include "model/layer.h"

namespace mica {

// Bytes of logits that both models together have at a time, at most.
inline constexpr size_t kDivergenceBytes = size_t{512} << 20;

// Token by token, with p the distribution of `reference` given reference_x and q that of `model` given x
// (both [tokens, hidden of the model], residual streams before the final norm): kl[t] = sum_v p(v) ln(p(v) /
// q(v)) in nats, same_top[t] = 1 where both find the same token most likely. The two vocabularies must be of
// one size.
void OutputDivergence(const OutputHead& reference, ConstTensor reference_x, const OutputHead& model,
                      ConstTensor x, std::span<float> kl, std::span<uint8_t> same_top);

}  // namespace mica
