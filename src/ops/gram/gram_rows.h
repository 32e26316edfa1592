// The vectorised parts of gram.cc: packing of tokens and the sum of tiles. This pair alone includes
// Highway for them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"

namespace mica {

// packed[c * tokens + t] = x[t * stride + c] for a block of tokens; tokens and cols are multiples of 8.
// sum[c] grows by the column's values in the order of tokens (FP32); top[c] rises to the largest magnitude as
// bits of its type without the sign, so that NaN and infinity compare above every number. packed may not
// overlap x.
void PackTransposed(const BF16* x, size_t stride, size_t tokens, size_t cols, BF16* packed, float* sum,
                    uint16_t* top);
// The same with row t of the packed copy scaled by row_scale[t] and of the sums by weight[t].
void PackTransposed(const float* x, size_t stride, size_t tokens, size_t cols, const float* row_scale,
                    const float* weight, float* packed, float* sum, uint32_t* top);

// sum[i] += tile[i], i in [0, n); n is a multiple of 16.
void AddToDouble(const float* tile, size_t n, double* sum);

}  // namespace mica
