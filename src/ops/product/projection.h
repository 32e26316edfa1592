// The products in front of attention: queries, keys and values with their biases, rotated by position and
// split into heads, all on the tiles of the product.
#pragma once

#include <cstddef>

#include "device/tensor.h"
#include "ops/product/prepared_weights.h"
#include "ops/rope/rope.h"

namespace mica {

// Weights and bias of a linear layer; the bias, [1, outputs] FP32, may be empty.
struct Linear {
  const PreparedWeights* weights = nullptr;
  ConstTensor bias;
};

// Rows of a block of prepared weights whose outputs are heads: whole heads, about kBlockOutputs.
size_t HeadBlockOutputs(size_t head_dim);

// q_out[h * tokens + t] = head h of (x[t] Wq^T + bias), turned by the angle of t's position in its window of
// `window` tokens; k_out the same, v_out without the turn. x: [tokens, inputs] of the type of the weights'
// operands, tokens a multiple of window; weights prepared with HeadBlockOutputs; the tables have `window`
// positions, or are null where nothing turns. q_out: [heads * tokens, head_dim], k_out and v_out: [kv_heads *
// tokens, head_dim], of the type of x, rounded once from FP32.
void ProjectHeads(ConstTensor x, const Linear& q, const Linear& k, const Linear& v, const RopeTable* q_rope,
                  const RopeTable* k_rope, size_t window, Tensor q_out, Tensor k_out, Tensor v_out);

}  // namespace mica
