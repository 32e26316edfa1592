// Causal attention and its gradient. On the processor: blocks of queries and keys with an online softmax
// (Milakov & Gimelshein 2018; Dao et al. 2022), so that a thread holds one block of scores, whatever the
// window. On a CUDA device the same by warps: BF16 heads of up to 256 channels (a multiple of 8) on tensor
// cores, all else in FP32; sums have a fixed order there as well.
#pragma once

#include <cstddef>

#include "device/tensor.h"

namespace mica {

// Windows of `window` consecutive tokens; tokens is a multiple of window. Query head h reads key/value head h
// / (heads / kv_heads); heads is a multiple of kv_heads.
struct AttentionShape {
  size_t tokens = 0;
  size_t window = 0;
  size_t heads = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;
};

// Queries, keys and values head by head, of one type, FP32 or BF16, dense.
struct AttentionInputs {
  ConstTensor q;        // [heads * tokens, head_dim]: head h's rows start at h * tokens
  ConstTensor k;        // [kv_heads * tokens, head_dim]
  ConstTensor v;        // [kv_heads * tokens, head_dim]
  float factor = 1.0f;  // what scores are multiplied by, > 0
  float soft_cap = 0;   // then score = soft_cap tanh(score / soft_cap) (Gemma 2, 2024); 0: as they are
  size_t sliding = 0;   // a token sees the last so many of its window, itself included; 0: all of them
};

// out[t, h * head_dim + i] = sum_s softmax_s(factor * q[h, t] . k[h', s]) v[h', s, i] over s <= t in t's
// window (t - sliding < s, the scores capped, if asked). out: [tokens, heads * head_dim] of the type of q;
// with BF16 the probabilities are rounded to BF16 before the second product. log_sums, [heads, tokens] FP32
// or empty, receives the logarithm of each row's softmax denominator. Results do not depend on the number of
// threads.
void Attention(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums);

// What the forward pass left and what the loss feels of its result.
struct AttentionFeedback {
  ConstTensor out;       // [tokens, heads * head_dim], what Attention gave, of the type of q
  ConstTensor log_sums;  // [heads, tokens] FP32, what Attention gave
  ConstTensor grad_out;  // [tokens, heads * head_dim] FP32
};
// All FP32, dense and overwritten; k and v are summed over the query heads that share them.
struct AttentionGradients {
  Tensor q;  // [heads * tokens, head_dim]
  Tensor k;  // [kv_heads * tokens, head_dim]
  Tensor v;  // [kv_heads * tokens, head_dim]
};

// Gradients of sum(grad_out * out) with respect to q, k and v. grad_out, the probabilities and the gradients
// of the scores are rounded to the type of q before they are multiplied; the scores are computed again block
// by block from the log-sum-exps (Dao et al. 2022, algorithm 4). Results do not depend on the number of
// threads.
void AttentionGradient(const AttentionShape& shape, const AttentionInputs& in,
                       const AttentionFeedback& feedback, const AttentionGradients& out);

// The scalar oracles of both, sums in double.
void AttentionRef(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums);
void AttentionGradientRef(const AttentionShape& shape, const AttentionInputs& in,
                          const AttentionFeedback& feedback, const AttentionGradients& out);

}  // namespace mica
