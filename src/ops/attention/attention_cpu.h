// The processor's side of attention, T = float or BF16: the type of q, which attention.cc has looked at.
#pragma once

#include "ops/attention/attention.h"

namespace mica {

template <typename T>
void AttentionCpu(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums);
template <typename T>
void AttentionGradientCpu(const AttentionShape& shape, const AttentionInputs& in,
                          const AttentionFeedback& feedback, const AttentionGradients& out);

}  // namespace mica
