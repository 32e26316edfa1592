// Causal attention in blocks of queries and keys with an online softmax (Milakov & Gimelshein 2018; Dao et
// al. 2022): per thread one block of scores, whatever the window. The signatures are those of KernelTable.
#pragma once

#include "kernels/kernels.h"

namespace mica {

void BlockedAttention(const AttentionShape& shape, const float* q, const float* k, const float* v,
                      float factor, MatrixView<float> out, float* log_sums);
void BlockedAttention(const AttentionShape& shape, const BF16* q, const BF16* k, const BF16* v, float factor,
                      MatrixView<BF16> out, float* log_sums);

}  // namespace mica
