// Attention of new tokens over the keys and values of all tokens before them, which a cache keeps in 16 or 8
// bits.
#pragma once

#include <cstddef>

#include "device/tensor.h"

namespace mica {

// Keys and values of one layer, of one sequence. Head h's rows start at h * capacity, a row a token.
struct CachedKeys {
  Tensor k, v;  // [kv_heads * capacity, head_dim] F16, or I8
  // With I8: [kv_heads * capacity, 1] FP32, what the integers of a row are multiplied by; else empty.
  Tensor k_scales, v_scales;
  size_t capacity = 0;
};

// Writes keys and values of new tokens behind `past`: k, v [kv_heads * tokens, head_dim] FP32, head h's rows
// starting at h * tokens, past + tokens <= capacity. F16 to nearest, within +-65504; I8 with the scale largest
// / 127 of each row.
void AppendKeys(ConstTensor k, ConstTensor v, size_t past, const CachedKeys& cache);

struct CachedAttentionShape {
  size_t tokens = 0;  // new ones, whose keys the cache has already
  size_t past = 0;    // before them
  size_t heads = 0, kv_heads = 0, head_dim = 0;
};
struct CachedQueries {
  ConstTensor q;        // [heads * tokens, head_dim] FP32, head h's rows starting at h * tokens
  float factor = 1.0f;  // as in AttentionInputs (attention.h), as are the next two
  float soft_cap = 0;
  size_t sliding = 0;
};
// out[t, h * head_dim + i] = sum_s softmax_s(factor * q[h, t] . k[h', s]) v[h', s, i] over s <= past + t. out:
// [tokens, heads * head_dim] FP32. Results do not depend on the number of threads.
void CachedAttention(const CachedAttentionShape& shape, const CachedQueries& in, const CachedKeys& cache,
                     Tensor out);

// The scalar oracle, sums in double.
void CachedAttentionRef(const CachedAttentionShape& shape, const CachedQueries& in, const CachedKeys& cache,
                        Tensor out);

}  // namespace mica
