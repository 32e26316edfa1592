// The scalar reference: what every function of the table means, in the plainest code, sums in double.
#include <cmath>
#include <numbers>
#include <vector>

#include "ops/tile/dispatch.h"
#include "ops/tile/tables.h"

namespace mica {
namespace {

template <typename T>
void FromF32(const float* in, size_t n, T* out) {
  for (size_t i = 0; i < n; ++i) out[i] = Narrow<T>(in[i]);
}
template <typename T>
void ToF32(const T* in, size_t n, float* out) {
  for (size_t i = 0; i < n; ++i) out[i] = Widen(in[i]);
}

void Add(const float* in, size_t n, float* inout) {
  for (size_t i = 0; i < n; ++i) inout[i] += in[i];
}
void Scale(float factor, size_t n, float* inout) {
  for (size_t i = 0; i < n; ++i) inout[i] *= factor;
}
void SoftCap(float cap, size_t n, float* inout) {
  for (size_t i = 0; i < n; ++i) inout[i] = static_cast<float>(cap * std::tanh(double{inout[i]} / cap));
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
  for (size_t i = 0; i < n; ++i) out[i] = Narrow<Out>(in[i] * factor * weight[i]);
}

template <typename Out>
void Rope(const float* in, const float* cosines, const float* sines, size_t head_dim, Out* out) {
  const size_t half = head_dim / 2;
  for (size_t i = 0; i < half; ++i) {
    out[i] = Narrow<Out>(in[i] * cosines[i] - in[i + half] * sines[i]);
    out[i + half] = Narrow<Out>(in[i + half] * cosines[i] + in[i] * sines[i]);
  }
}

// What the gate's sigmoid is taken of, and its derivative.
struct GateArgument {
  double value, slope;
};
GateArgument ArgumentOf(Activation activation, double gate) {
  if (activation == Activation::kSilu) return {gate, 1.0};
  const double scale = 2.0 * std::sqrt(2.0 / std::numbers::pi);
  return {scale * (gate + 0.044715 * gate * gate * gate), scale * (1.0 + 3.0 * 0.044715 * gate * gate)};
}

template <typename Out>
void Gated(Activation activation, const float* gate, const float* up, size_t n, Out* out) {
  for (size_t i = 0; i < n; ++i) {
    const double argument = ArgumentOf(activation, gate[i]).value;
    out[i] = Narrow<Out>(static_cast<float>(gate[i] / (1.0 + std::exp(-argument)) * up[i]));
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
    out[i] = Narrow<Out>(static_cast<float>(value));
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

void GatedGradient(Activation activation, const float* gate, const float* up, const float* grad_out, size_t n,
                   float* grad_gate, float* grad_up) {
  for (size_t i = 0; i < n; ++i) {
    const double g = gate[i], u = up[i];
    const auto [argument, slope] = ArgumentOf(activation, g);
    const double sigmoid = 1.0 / (1.0 + std::exp(-argument));
    grad_gate[i] = static_cast<float>(grad_out[i] * u * sigmoid * (1.0 + g * (1.0 - sigmoid) * slope));
    grad_up[i] = static_cast<float>(grad_out[i] * g * sigmoid);
  }
}

template <typename Out>
void SoftmaxGradient(const float* p, const float* grad_p, size_t n, float mean, float factor, Out* out) {
  for (size_t i = 0; i < n; ++i) out[i] = Narrow<Out>(p[i] * (grad_p[i] - mean) * factor);
}

template <typename T>
void Product(const T* a, const T* b, bool b_transposed, size_t m, size_t n, size_t k, bool accumulate,
             float* c) {
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double sum = accumulate ? c[i * n + j] : 0.0;
      for (size_t l = 0; l < k; ++l) {
        sum += double{Widen(a[i * k + l])} * Widen(b_transposed ? b[j * k + l] : b[l * n + j]);
      }
      c[i * n + j] = static_cast<float>(sum);
    }
  }
}

template <typename T>
OperandKernels<T> OperandFunctions() {
  OperandKernels<T> kernels{};
  kernels.from_f32 = FromF32<T>;
  kernels.to_f32 = ToF32<T>;
  kernels.rms_norm = RmsNorm<T>;
  kernels.rope = Rope<T>;
  kernels.gated = Gated<T>;
  kernels.softmax_step = SoftmaxStep<T>;
  kernels.softmax_gradient = SoftmaxGradient<T>;
  kernels.product = Product<T>;
  return kernels;
}

}  // namespace

const KernelTable& RefKernels() {
  static const KernelTable table = {
      .name = "ref",
      .f32 = OperandFunctions<float>(),
      .bf16 = OperandFunctions<BF16>(),
      .f16 = {FromF32<F16>, ToF32<F16>},
      .add = Add,
      .scale = Scale,
      .soft_cap = SoftCap,
      .dot = Dot,
      .log_sum_step = LogSumStep,
      .exp = Exp,
      .add_rms_norm_gradient = AddRmsNormGradient,
      .gated_gradient = GatedGradient,
  };
  return table;
}

}  // namespace mica
