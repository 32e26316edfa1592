// The processor's side of attention, T = float or BF16: the type of q, which attention.cc has looked at.
#pragma once

#include "ops/attention/attention.h"

namespace mica {

// The first key that a token sees, both counted in their window.
inline size_t FirstKey(const AttentionInputs& in, size_t position) {
  return in.sliding == 0 || position < in.sliding ? 0 : position + 1 - in.sliding;
}

template <typename T>
void AttentionCpu(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums);
template <typename T>
void AttentionGradientCpu(const AttentionShape& shape, const AttentionInputs& in,
                          const AttentionFeedback& feedback, const AttentionGradients& out);

}  // namespace mica
