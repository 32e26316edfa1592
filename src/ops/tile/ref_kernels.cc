// The scalar reference: what every function of the table means, in the plainest code, sums in double.
#include <cmath>
#include <vector>

#include "ops/tile/tables.h"

namespace mica {
namespace {

void Store(float value, float* out) { *out = value; }
void Store(float value, BF16* out) { *out = ToBF16(value); }
float Load(float value) { return value; }
float Load(BF16 value) { return ToFloat(value); }

void F32ToBf16(const float* in, size_t n, BF16* out) {
  for (size_t i = 0; i < n; ++i) out[i] = ToBF16(in[i]);
}
void Bf16ToF32(const BF16* in, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) out[i] = ToFloat(in[i]);
}
void F32ToF16(const float* in, size_t n, F16* out) {
  for (size_t i = 0; i < n; ++i) out[i] = ToF16(in[i]);
}
void F16ToF32(const F16* in, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) out[i] = ToFloat(in[i]);
}

void Add(const float* in, size_t n, float* inout) {
  for (size_t i = 0; i < n; ++i) inout[i] += in[i];
}
void Scale(float factor, size_t n, float* inout) {
  for (size_t i = 0; i < n; ++i) inout[i] *= factor;
}
float Dot(const float* a, const float* b, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; ++i) sum += double{a[i]} * b[i];
  return static_cast<float>(sum);
}

template <typename Out>
void RmsNorm(const float* in, const float* weight, size_t n, float epsilon, Out* out) {
  double squares = 0.0;
  for (size_t i = 0; i < n; ++i) squares += double{in[i]} * in[i];
  const float factor = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon));
  for (size_t i = 0; i < n; ++i) Store(in[i] * factor * weight[i], out + i);
}

template <typename Out>
void Rope(const float* in, const float* cosines, const float* sines, size_t head_dim, Out* out) {
  const size_t half = head_dim / 2;
  for (size_t i = 0; i < half; ++i) {
    Store(in[i] * cosines[i] - in[i + half] * sines[i], out + i);
    Store(in[i + half] * cosines[i] + in[i] * sines[i], out + i + half);
  }
}

template <typename Out>
void Swiglu(const float* gate, const float* up, size_t n, Out* out) {
  for (size_t i = 0; i < n; ++i) {
    Store(static_cast<float>(gate[i] / (1.0 + std::exp(-double{gate[i]})) * up[i]), out + i);
  }
}

template <typename Out>
float SoftmaxStep(const float* scores, size_t n, float factor, RunningSum* state, Out* out) {
  float max = state->max;
  for (size_t i = 0; i < n; ++i) {
    const float value = factor * scores[i];
    if (!(value <= max)) max = value;  // NaN wins
  }
  const double rescale = std::exp(double{state->max} - max);
  double sum = state->sum * rescale;
  for (size_t i = 0; i < n; ++i) {
    const double value = std::exp(double{factor * scores[i]} - max);
    sum += value;
    Store(static_cast<float>(value), out + i);
  }
  *state = {max, static_cast<float>(sum)};
  return static_cast<float>(rescale);
}

void LogSumStep(const float* values, size_t n, RunningSum* state) {
  std::vector<float> unused(n);
  SoftmaxStep(values, n, 1.0f, state, unused.data());
}

void Exp(const float* scores, size_t n, float factor, float offset, float* out) {
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<float>(std::exp(double{factor} * scores[i] - offset));
}

void AddRmsNormGradient(const float* in, const float* weight, const float* grad_out, size_t n, float epsilon,
                        float* grad_in) {
  double squares = 0.0, along = 0.0;
  for (size_t i = 0; i < n; ++i) {
    squares += double{in[i]} * in[i];
    along += double{grad_out[i]} * weight[i] * in[i];
  }
  const double factor = 1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon);
  for (size_t i = 0; i < n; ++i) {
    const double gradient =
        factor * (double{grad_out[i]} * weight[i] - in[i] * along * factor * factor / static_cast<double>(n));
    grad_in[i] = static_cast<float>(grad_in[i] + gradient);
  }
}

void SwigluGradient(const float* gate, const float* up, const float* grad_out, size_t n, float* grad_gate,
                    float* grad_up) {
  for (size_t i = 0; i < n; ++i) {
    const double g = gate[i], u = up[i], sigmoid = 1.0 / (1.0 + std::exp(-g));
    grad_gate[i] = static_cast<float>(grad_out[i] * u * sigmoid * (1.0 + g * (1.0 - sigmoid)));
    grad_up[i] = static_cast<float>(grad_out[i] * g * sigmoid);
  }
}

template <typename Out>
void SoftmaxGradient(const float* p, const float* grad_p, size_t n, float mean, float factor, Out* out) {
  for (size_t i = 0; i < n; ++i) Store(p[i] * (grad_p[i] - mean) * factor, out + i);
}

template <typename T>
void Product(const T* a, const T* b, bool b_transposed, size_t m, size_t n, size_t k, bool accumulate,
             float* c) {
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double sum = accumulate ? c[i * n + j] : 0.0;
      for (size_t l = 0; l < k; ++l) {
        sum += double{Load(a[i * k + l])} * Load(b_transposed ? b[j * k + l] : b[l * n + j]);
      }
      c[i * n + j] = static_cast<float>(sum);
    }
  }
}

template <typename T>
void Attention(const AttentionShape& shape, const T* q, const T* k, const T* v, float factor,
               MatrixView<T> out, float* log_sums) {
  const auto [tokens, window, heads, kv_heads, head_dim] = shape;
  std::vector<double> weights(window), sums(head_dim);
  for (size_t head = 0; head < heads; ++head) {
    const size_t kv_head = head / (heads / kv_heads);
    for (size_t t = 0; t < tokens; ++t) {
      const size_t first = t / window * window;  // first token of the window
      const T* query = q + (head * tokens + t) * head_dim;
      double max = -std::numeric_limits<double>::infinity();
      for (size_t s = first; s <= t; ++s) {
        const T* key = k + (kv_head * tokens + s) * head_dim;
        double score = 0.0;
        for (size_t i = 0; i < head_dim; ++i) score += double{Load(query[i])} * Load(key[i]);
        weights[s - first] = score * factor;
        max = std::max(max, weights[s - first]);
      }
      double total = 0.0;
      std::fill(sums.begin(), sums.end(), 0.0);
      for (size_t s = first; s <= t; ++s) {
        const double weight = std::exp(weights[s - first] - max);
        total += weight;
        const T* value = v + (kv_head * tokens + s) * head_dim;
        for (size_t i = 0; i < head_dim; ++i) sums[i] += weight * Load(value[i]);
      }
      for (size_t i = 0; i < head_dim; ++i) {
        Store(static_cast<float>(sums[i] / total), out.row(t) + head * head_dim + i);
      }
      if (log_sums != nullptr) log_sums[head * tokens + t] = static_cast<float>(max + std::log(total));
    }
  }
}

template <typename T>
void AttentionGradient(const AttentionShape& shape, const AttentionGradientInputs<T>& in,
                       const AttentionGradients& out) {
  const auto [tokens, window, heads, kv_heads, head_dim] = shape;
  const size_t kv_values = kv_heads * tokens * head_dim;
  std::vector<double> grad_k(kv_values, 0.0), grad_v(kv_values, 0.0), grad_q(head_dim);
  for (size_t head = 0; head < heads; ++head) {
    const size_t kv_head = head / (heads / kv_heads);
    for (size_t t = 0; t < tokens; ++t) {
      const size_t row = (head * tokens + t) * head_dim;
      std::fill(grad_q.begin(), grad_q.end(), 0.0);
      for (size_t s = t / window * window; s <= t; ++s) {
        const size_t key = (kv_head * tokens + s) * head_dim;
        double score = 0.0, grad_p = 0.0;
        for (size_t i = 0; i < head_dim; ++i) {
          score += double{Load(in.q[row + i])} * Load(in.k[key + i]);
          grad_p += double{Load(in.grad_out[row + i])} * Load(in.v[key + i]);
        }
        const double p = std::exp(score * in.factor - in.log_sums[head * tokens + t]);
        const double grad_score = p * (grad_p - in.grad_means[head * tokens + t]) * in.factor;
        for (size_t i = 0; i < head_dim; ++i) {
          grad_q[i] += grad_score * Load(in.k[key + i]);
          grad_k[key + i] += grad_score * Load(in.q[row + i]);
          grad_v[key + i] += p * Load(in.grad_out[row + i]);
        }
      }
      for (size_t i = 0; i < head_dim; ++i) out.q[row + i] = static_cast<float>(grad_q[i]);
    }
  }
  for (size_t i = 0; i < kv_values; ++i) {
    out.k[i] = static_cast<float>(grad_k[i]);
    out.v[i] = static_cast<float>(grad_v[i]);
  }
}

}  // namespace

const KernelTable& RefKernels() {
  static const KernelTable table = {
      .name = "ref",
      .f32_to_bf16 = F32ToBf16,
      .bf16_to_f32 = Bf16ToF32,
      .f32_to_f16 = F32ToF16,
      .f16_to_f32 = F16ToF32,
      .add = Add,
      .scale = Scale,
      .dot = Dot,
      .rms_norm_f32 = RmsNorm<float>,
      .rms_norm_bf16 = RmsNorm<BF16>,
      .rope_f32 = Rope<float>,
      .rope_bf16 = Rope<BF16>,
      .swiglu_f32 = Swiglu<float>,
      .swiglu_bf16 = Swiglu<BF16>,
      .softmax_step_f32 = SoftmaxStep<float>,
      .softmax_step_bf16 = SoftmaxStep<BF16>,
      .log_sum_step = LogSumStep,
      .exp_f32 = Exp,
      .add_rms_norm_gradient = AddRmsNormGradient,
      .swiglu_gradient = SwigluGradient,
      .softmax_gradient_f32 = SoftmaxGradient<float>,
      .softmax_gradient_bf16 = SoftmaxGradient<BF16>,
      .product_f32 = Product<float>,
      .product_bf16 = Product<BF16>,
      .attention_f32 = Attention<float>,
      .attention_bf16 = Attention<BF16>,
      .attention_gradient_f32 = AttentionGradient<float>,
      .attention_gradient_bf16 = AttentionGradient<BF16>,
  };
  return table;
}

}  // namespace mica
