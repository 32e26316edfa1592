// The arithmetic between the matrix products, as one table of functions per back end. `ref` is scalar code
// that says what each function means; `cpu` is vectorised for the instruction set found at run time and is
// tested against it. A device back end is one more table: it adds an enumerator here, a file
// <device>_kernels.cc that fills the table, and a build without that device leaves the file out.
#pragma once

#include <cstddef>
#include <limits>

#include "base/half.h"
#include "base/matrix.h"

namespace mica {

enum class Backend { kRef, kCpu };

// State of a running softmax or log-sum-exp over the values seen so far: sum_i exp(value_i) = sum * exp(max).
struct RunningSum {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
};

// Causal attention over windows of `window` consecutive tokens; tokens is a multiple of window. Query head h
// reads key/value head h / (heads / kv_heads); heads is a multiple of kv_heads.
struct AttentionShape {
  size_t tokens = 0;
  size_t window = 0;
  size_t heads = 0;
  size_t kv_heads = 0;
  size_t head_dim = 0;
};

// What the gradient of attention needs besides its shape; T is float or BF16.
template <typename T>
struct AttentionGradientInputs {
  const T* q = nullptr;               // [heads, tokens, head_dim]
  const T* k = nullptr;               // [kv_heads, tokens, head_dim]
  const T* v = nullptr;               // [kv_heads, tokens, head_dim]
  const T* grad_out = nullptr;        // [heads, tokens, head_dim]
  const float* log_sums = nullptr;    // [heads, tokens], from the forward pass
  const float* grad_means = nullptr;  // [heads, tokens]: grad_out . out of each row
  float factor = 1.0f;
};
struct AttentionGradients {
  float* q = nullptr;  // [heads, tokens, head_dim], overwritten
  float* k = nullptr;  // [kv_heads, tokens, head_dim], overwritten; summed over the query heads that share it
  float* v = nullptr;  // the same
};

// Row functions run on the calling thread and touch only their arguments; `in` may equal `out` where both
// have the same type. NaN in gives NaN out. BF16 and F16 results are rounded to nearest, ties to even, from
// the FP32 result.
struct KernelTable {
  const char* name;  // "ref", "cpu"

  void (*f32_to_bf16)(const float* in, size_t n, BF16* out);
  void (*bf16_to_f32)(const BF16* in, size_t n, float* out);
  void (*f32_to_f16)(const float* in, size_t n, F16* out);
  void (*f16_to_f32)(const F16* in, size_t n, float* out);

  void (*add)(const float* in, size_t n, float* inout);    // inout[i] += in[i]
  void (*scale)(float factor, size_t n, float* inout);     // inout[i] *= factor
  float (*dot)(const float* a, const float* b, size_t n);  // sum_i a[i] b[i]

  // out[i] = in[i] / sqrt(mean(in^2) + epsilon) * weight[i]   (RMSNorm, Zhang & Sennrich 2019)
  void (*rms_norm_f32)(const float* in, const float* weight, size_t n, float epsilon, float* out);
  void (*rms_norm_bf16)(const float* in, const float* weight, size_t n, float epsilon, BF16* out);

  // Rotary embedding of one head at one position, halves convention: with h = head_dim / 2 and i in [0, h),
  // out[i] = in[i] cos[i] - in[i + h] sin[i], out[i + h] = in[i + h] cos[i] + in[i] sin[i]. `in` must not
  // equal `out`.
  void (*rope_f32)(const float* in, const float* cosines, const float* sines, size_t head_dim, float* out);
  void (*rope_bf16)(const float* in, const float* cosines, const float* sines, size_t head_dim, BF16* out);

  // out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]   (SwiGLU, Shazeer 2020)
  void (*swiglu_f32)(const float* gate, const float* up, size_t n, float* out);
  void (*swiglu_bf16)(const float* gate, const float* up, size_t n, BF16* out);

  // One step of an online softmax over `n` more scores of a row: updates state to include factor * scores[i];
  // out[i] = exp(factor * scores[i] - state.max). Returns exp(old max - new max): what everything accumulated
  // from earlier steps must be multiplied by (0 at the first step). n > 0, factor > 0; scores may equal out.
  float (*softmax_step_f32)(const float* scores, size_t n, float factor, RunningSum* state, float* out);
  float (*softmax_step_bf16)(const float* scores, size_t n, float factor, RunningSum* state, BF16* out);
  // The same without the exponentials themselves, factor 1: log sum exp of all values seen = state.max +
  // log(state.sum).
  void (*log_sum_step)(const float* values, size_t n, RunningSum* state);
  // out[i] = exp(factor * scores[i] - offset): softmax with a known log-sum-exp.
  void (*exp_f32)(const float* scores, size_t n, float factor, float offset, float* out);

  // Gradients, for the backward pass. With y = rms_norm(in): grad_in += (dy/din)^T grad_out.
  void (*add_rms_norm_gradient)(const float* in, const float* weight, const float* grad_out, size_t n,
                                float epsilon, float* grad_in);
  // Of swiglu with respect to gate and up. grad_gate and grad_up may equal gate and up.
  void (*swiglu_gradient)(const float* gate, const float* up, const float* grad_out, size_t n,
                          float* grad_gate, float* grad_up);
  // Of a softmax row with respect to the scores before `factor`: out[i] = p[i] (grad_p[i] - mean) factor,
  // mean = sum_j p[j] grad_p[j].
  void (*softmax_gradient_f32)(const float* p, const float* grad_p, size_t n, float mean, float factor,
                               float* out);
  void (*softmax_gradient_bf16)(const float* p, const float* grad_p, size_t n, float mean, float factor,
                                BF16* out);

  // c[m, n] = a[m, k] b, or c += where accumulate; all dense and row-major on the calling thread. b is [k,
  // n], or [n, k] when b_transposed. FP32 sums; BF16 operands are multiplied exactly.
  void (*product_f32)(const float* a, const float* b, bool b_transposed, size_t m, size_t n, size_t k,
                      bool accumulate, float* c);
  void (*product_bf16)(const BF16* a, const BF16* b, bool b_transposed, size_t m, size_t n, size_t k,
                       bool accumulate, float* c);

  // out[t, h * head_dim + i] = sum_s softmax_s(factor * q[h, t] . k[h', s]) v[h', s, i] over s <= t in t's
  // window. q: [heads, tokens, head_dim]; k, v: [kv_heads, tokens, head_dim]; out: [tokens, heads *
  // head_dim]. Spread over the threads (cpu); never holds a window x window matrix. With BF16 the
  // probabilities are rounded to BF16 before the second product. log_sums ([heads, tokens] or null) receives
  // the logarithm of each row's softmax denominator.
  void (*attention_f32)(const AttentionShape& shape, const float* q, const float* k, const float* v,
                        float factor, MatrixView<float> out, float* log_sums);
  void (*attention_bf16)(const AttentionShape& shape, const BF16* q, const BF16* k, const BF16* v,
                         float factor, MatrixView<BF16> out, float* log_sums);

  // Gradients of sum(grad_out * out) with respect to q, k and v. Spread over the threads by window and
  // key/value head (cpu).
  void (*attention_gradient_f32)(const AttentionShape& shape, const AttentionGradientInputs<float>& in,
                                 const AttentionGradients& out);
  void (*attention_gradient_bf16)(const AttentionShape& shape, const AttentionGradientInputs<BF16>& in,
                                  const AttentionGradients& out);
};

// The table of a back end; always the same object.
const KernelTable& Kernels(Backend backend);

}  // namespace mica
