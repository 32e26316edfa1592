// Causal attention in blocks of queries and keys with an online softmax (Milakov & Gimelshein 2018; Dao et
// al. 2022): per thread one block of scores, whatever the window. The signatures are those of KernelTable.
#pragma once

#include "ops/tile/kernels.h"

namespace mica {

void BlockedAttention(const AttentionShape& shape, const float* q, const float* k, const float* v,
                      float factor, MatrixView<float> out, float* log_sums);
void BlockedAttention(const AttentionShape& shape, const BF16* q, const BF16* k, const BF16* v, float factor,
                      MatrixView<BF16> out, float* log_sums);

// The scores are computed again block by block from the log-sum-exps (Dao et al. 2022, algorithm 4).
void BlockedAttentionGradient(const AttentionShape& shape, const AttentionGradientInputs<float>& in,
                              const AttentionGradients& out);
void BlockedAttentionGradient(const AttentionShape& shape, const AttentionGradientInputs<BF16>& in,
                              const AttentionGradients& out);

}  // namespace mica
