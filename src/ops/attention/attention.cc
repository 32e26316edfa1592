#include "ops/attention/attention.h"

#include "base/error.h"
#include "ops/attention/attention_cpu.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"

namespace mica {
namespace {

bool IsDense(const ConstTensor& x, size_t rows, size_t cols) {
  return x.rows == rows && x.cols == cols && (x.stride == cols || rows <= 1);
}

void Check(const AttentionShape& shape, const AttentionInputs& in) {
  const auto [tokens, window, heads, kv_heads, head_dim] = shape;
  MICA_CHECK(window > 0);
  MICA_CHECK(tokens % window == 0);
  MICA_CHECK(kv_heads > 0);
  MICA_CHECK(heads % kv_heads == 0);
  MICA_CHECK(IsDense(in.q, heads * tokens, head_dim));
  MICA_CHECK(in.factor > 0);
  MICA_CHECK(in.soft_cap >= 0);
  MICA_CHECK(IsDense(in.k, kv_heads * tokens, head_dim));
  MICA_CHECK(in.k.dtype == in.q.dtype);
  MICA_CHECK(IsDense(in.v, kv_heads * tokens, head_dim));
  MICA_CHECK(in.v.dtype == in.q.dtype);
}

}  // namespace

void Attention(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums) {
  Check(shape, in);
  MICA_CHECK(out.rows == shape.tokens);
  MICA_CHECK(out.cols == shape.heads * shape.head_dim);
  MICA_CHECK(log_sums.empty() || IsDense(log_sums, shape.heads, shape.tokens));
  if (in.q.device.is_cuda()) return Cuda().Attention(shape, in, out, log_sums);
  DispatchOperand(in.q.dtype, [&](auto type) { AttentionCpu<decltype(type)>(shape, in, out, log_sums); });
}

void AttentionGradient(const AttentionShape& shape, const AttentionInputs& in,
                       const AttentionFeedback& feedback, const AttentionGradients& out) {
  Check(shape, in);
  const auto [tokens, window, heads, kv_heads, head_dim] = shape;
  MICA_CHECK(feedback.out.rows == tokens);
  MICA_CHECK(feedback.out.cols == heads * head_dim);
  MICA_CHECK(feedback.grad_out.rows == tokens);
  MICA_CHECK(feedback.grad_out.cols == heads * head_dim);
  MICA_CHECK(IsDense(feedback.log_sums, heads, tokens));
  MICA_CHECK(IsDense(out.q, heads * tokens, head_dim));
  MICA_CHECK(IsDense(out.k, kv_heads * tokens, head_dim));
  MICA_CHECK(IsDense(out.v, kv_heads * tokens, head_dim));
  if (in.q.device.is_cuda()) return Cuda().AttentionGradient(shape, in, feedback, out);
  DispatchOperand(in.q.dtype,
                  [&](auto type) { AttentionGradientCpu<decltype(type)>(shape, in, feedback, out); });
}

}  // namespace mica
