#include "ops/activation/activation.h"

#include <array>
#include <utility>

#include "base/error.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/for_rows.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

constexpr std::array<std::pair<std::string_view, Activation>, 4> kNames = {{
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_new", Activation::kGeluTanh},
}};

bool SameShape(const ConstTensor& a, const ConstTensor& b) { return a.rows == b.rows && a.cols == b.cols; }

}  // namespace

std::optional<Activation> FindActivation(std::string_view name) {
  for (const auto& [known, activation] : kNames) {
    if (known == name) return activation;
  }
  return std::nullopt;
}

std::string ActivationNames() { return "silu and gelu_pytorch_tanh"; }

void Gated(Activation activation, ConstTensor gate, ConstTensor up, Tensor out) {
  MICA_CHECK(SameShape(gate, up));
  MICA_CHECK(SameShape(gate, out));
  if (out.device.is_cuda()) return Cuda().Gated(activation, gate, up, out);
  const MatrixView<const float> g = gate.host<float>(), u = up.host<float>();
  DispatchOperand(out.dtype, [&](auto type) {
    using T = decltype(type);
    const MatrixView<T> hidden = out.host<T>();
    const auto gated = Kernels(Backend::kCpu).of<T>().gated;
    ForRows(g.rows, [&](size_t t) { gated(activation, g.row(t), u.row(t), g.cols, hidden.row(t)); });
  });
}

void GatedGradient(Activation activation, ConstTensor gate, ConstTensor up, ConstTensor out_gradient,
                   Tensor gate_gradient, Tensor up_gradient) {
  MICA_CHECK(SameShape(gate, up));
  MICA_CHECK(SameShape(gate, out_gradient));
  MICA_CHECK(SameShape(gate, gate_gradient));
  MICA_CHECK(SameShape(gate, up_gradient));
  if (gate.device.is_cuda())
    return Cuda().GatedGradient(activation, gate, up, out_gradient, gate_gradient, up_gradient);
  const MatrixView<const float> g = gate.host<float>(), u = up.host<float>(),
                                felt = out_gradient.host<float>();
  const MatrixView<float> of_gate = gate_gradient.host<float>(), of_up = up_gradient.host<float>();
  const auto gradient = Kernels(Backend::kCpu).gated_gradient;
  ForRows(g.rows, [&](size_t t) {
    gradient(activation, g.row(t), u.row(t), felt.row(t), g.cols, of_gate.row(t), of_up.row(t));
  });
}

}  // namespace mica
