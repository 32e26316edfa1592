// Attention of new tokens over the keys and values of all tokens before them, which a cache keeps in 16 or 8
// bits.
#pragma once

#include <cstddef>

#include "device/tensor.h"
#include "ops/rope/rope.h"

namespace mica {

// Keys and values of one layer, of one sequence. Head h's rows start at h * capacity, a row a token.
struct CachedKeys {
  Tensor k, v;  // [kv_heads * capacity, head_dim] F16, or I8
  // With I8: [kv_heads * capacity, 1] FP32, what the integers of a row are multiplied by; else empty.
  Tensor k_scales, v_scales;
  size_t capacity = 0;
};

// How many tokens come before the new ones lies where these are, [1, 1] I32 (`past` below), so that work that
// was recorded (device/recorded_work.h) can be done behind any number of them. Writes it, in the order of the
// thread's work.
void SetPast(size_t tokens, Tensor past);

// What attention takes of new tokens as products give it, a row a token, FP32, a head's channels side by
// side.
struct NewHeads {
  ConstTensor q;     // [tokens, heads * head_dim]
  ConstTensor k, v;  // [tokens, kv_heads * head_dim]
  // That turn q and k, with as many positions as the cache has room for; null: none.
  const RopeTable* query_rope = nullptr;
  const RopeTable* key_rope = nullptr;
};
// Puts all heads where CachedAttention takes them: those of q, turned by the angle of past + t, into q [heads
// * tokens, head_dim] FP32, head h's rows starting at h * tokens; those of k, turned, and of v behind `past`
// rows of the cache, past + tokens <= capacity: F16 to nearest, within +-65504, or I8 with the scale largest
// / 127 of each row.
void CacheHeads(const NewHeads& heads, ConstTensor past, Tensor q, const CachedKeys& cache);

struct CachedAttentionShape {
  size_t tokens = 0;  // new ones, whose keys the cache has already
  size_t heads = 0, kv_heads = 0, head_dim = 0;
};
struct CachedQueries {
  ConstTensor q;        // [heads * tokens, head_dim] FP32, head h's rows starting at h * tokens
  ConstTensor past;     // [1, 1] I32: tokens before the new ones
  float factor = 1.0f;  // as in AttentionInputs (attention.h), as are the next two
  float soft_cap = 0;
  size_t sliding = 0;
};
// Up to so many new tokens go through a kernel of their own on a CUDA device, which spreads the keys of a
// query over the device. A row of its result does not depend on the other rows, nor on the capacity.
inline constexpr size_t kFewQueries = 8;

// out[t, h * head_dim + i] = sum_s softmax_s(factor * q[h, t] . k[h', s]) v[h', s, i] over s <= past + t.
// out: [tokens, heads * head_dim] FP32. Results do not depend on the number of threads.
void CachedAttention(const CachedAttentionShape& shape, const CachedQueries& in, const CachedKeys& cache,
                     Tensor out);

// The scalar oracle, sums in double.
void CachedAttentionRef(const CachedAttentionShape& shape, const CachedQueries& in, const CachedKeys& cache,
                        Tensor out);

}  // namespace mica
