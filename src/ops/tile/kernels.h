// The arithmetic on rows and tiles that runs on one thread of the processor, below the families of ops: `ref`
// is scalar code that says what each function means; `cpu` is vectorised for the instruction set found at run
// time and is tested against it.
#pragma once

#include <cstddef>
#include <limits>
#include <type_traits>

#include "base/half.h"
#include "ops/activation/activation_kind.h"

namespace mica {

enum class Backend { kRef, kCpu };

// State of a running softmax or log-sum-exp over the values seen so far: sum_i exp(value_i) = sum * exp(max).
struct RunningSum {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0.0f;
};

// Row functions run on the calling thread and touch only their arguments; `in` may equal `out` where both
// have the same type. NaN in gives NaN out. BF16 and F16 results are rounded to nearest, ties to even, from
// the FP32 result.

// To and from T; copies when T is float.
template <typename T>
struct ConversionKernels {
  void (*from_f32)(const float* in, size_t n, T* out);
  void (*to_f32)(const T* in, size_t n, float* out);
};

// What reads or writes operands of products, T = float or BF16.
template <typename T>
struct OperandKernels : ConversionKernels<T> {
  // out[i] = in[i] / sqrt(mean(in^2) + epsilon) * weight[i]   (RMSNorm, Zhang & Sennrich 2019)
  void (*rms_norm)(const float* in, const float* weight, size_t n, float epsilon, T* out);

  // Rotary embedding of one head at one position, halves convention: with h = head_dim / 2 and i in [0, h),
  // out[i] = in[i] cos[i] - in[i + h] sin[i], out[i + h] = in[i + h] cos[i] + in[i] sin[i]. `in` must not
  // equal `out`.
  void (*rope)(const float* in, const float* cosines, const float* sines, size_t head_dim, T* out);

  // out[i] = f(gate[i]) up[i] (ops/activation/activation_kind.h)
  void (*gated)(Activation activation, const float* gate, const float* up, size_t n, T* out);

  // One step of an online softmax over `n` more scores of a row: updates state to include factor * scores[i];
  // out[i] = exp(factor * scores[i] - state.max). Returns exp(old max - new max): what everything accumulated
  // from earlier steps must be multiplied by (0 at the first step). n > 0, factor > 0; scores may equal out.
  float (*softmax_step)(const float* scores, size_t n, float factor, RunningSum* state, T* out);

  // Gradient of a softmax row with respect to the scores before `factor`: out[i] = p[i] (grad_p[i] - mean)
  // factor, mean = sum_j p[j] grad_p[j].
  void (*softmax_gradient)(const float* p, const float* grad_p, size_t n, float mean, float factor, T* out);

  // c[m, n] = a[m, k] b, or c += where accumulate; all dense and row-major on the calling thread. b is [k,
  // n], or [n, k] when b_transposed. FP32 sums; BF16 operands are multiplied exactly.
  void (*product)(const T* a, const T* b, bool b_transposed, size_t m, size_t n, size_t k, bool accumulate,
                  float* c);
};

struct KernelTable {
  const char* name;  // "ref", "cpu"

  OperandKernels<float> f32;
  OperandKernels<BF16> bf16;
  ConversionKernels<F16> f16;
  // The functions for elements of type T.
  template <typename T>
  const auto& of() const {
    if constexpr (std::is_same_v<T, float>) {
      return f32;
    } else if constexpr (std::is_same_v<T, BF16>) {
      return bf16;
    } else {
      static_assert(std::is_same_v<T, F16>);
      return f16;
    }
  }

  // On FP32 alone.
  void (*add)(const float* in, size_t n, float* inout);    // inout[i] += in[i]
  void (*scale)(float factor, size_t n, float* inout);     // inout[i] *= factor
  void (*soft_cap)(float cap, size_t n, float* inout);     // inout[i] = cap tanh(inout[i] / cap), cap > 0
  float (*dot)(const float* a, const float* b, size_t n);  // sum_i a[i] b[i]
  // softmax_step without the exponentials themselves, factor 1: log sum exp of all values seen = state.max +
  // log(state.sum).
  void (*log_sum_step)(const float* values, size_t n, RunningSum* state);
  // out[i] = exp(factor * scores[i] - offset): softmax with a known log-sum-exp.
  void (*exp)(const float* scores, size_t n, float factor, float offset, float* out);

  // Gradients, for the backward pass. With y = rms_norm(in): grad_in += (dy/din)^T grad_out.
  void (*add_rms_norm_gradient)(const float* in, const float* weight, const float* grad_out, size_t n,
                                float epsilon, float* grad_in);
  // Of gated with respect to gate and up. grad_gate and grad_up may equal gate and up.
  void (*gated_gradient)(Activation activation, const float* gate, const float* up, const float* grad_out,
                         size_t n, float* grad_gate, float* grad_up);
};

// The table of a back end; always the same object.
const KernelTable& Kernels(Backend backend);

}  // namespace mica
