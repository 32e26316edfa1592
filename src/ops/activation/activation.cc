#include "ops/activation/activation.h"

#include "base/error.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/for_rows.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

bool SameShape(const ConstTensor& a, const ConstTensor& b) { return a.rows == b.rows && a.cols == b.cols; }

}  // namespace

void Swiglu(ConstTensor gate, ConstTensor up, Tensor out) {
  MICA_CHECK(SameShape(gate, up));
  MICA_CHECK(SameShape(gate, out));
  if (out.device.is_cuda()) return Cuda().Swiglu(gate, up, out);
  const MatrixView<const float> g = gate.host<float>(), u = up.host<float>();
  DispatchOperand(out.dtype, [&](auto type) {
    using T = decltype(type);
    const MatrixView<T> hidden = out.host<T>();
    const auto swiglu = Kernels(Backend::kCpu).of<T>().swiglu;
    ForRows(g.rows, [&](size_t t) { swiglu(g.row(t), u.row(t), g.cols, hidden.row(t)); });
  });
}

void SwigluGradient(ConstTensor gate, ConstTensor up, ConstTensor out_gradient, Tensor gate_gradient,
                    Tensor up_gradient) {
  MICA_CHECK(SameShape(gate, up));
  MICA_CHECK(SameShape(gate, out_gradient));
  MICA_CHECK(SameShape(gate, gate_gradient));
  MICA_CHECK(SameShape(gate, up_gradient));
  if (gate.device.is_cuda()) return Cuda().SwigluGradient(gate, up, out_gradient, gate_gradient, up_gradient);
  const MatrixView<const float> g = gate.host<float>(), u = up.host<float>(),
                                felt = out_gradient.host<float>();
  const MatrixView<float> of_gate = gate_gradient.host<float>(), of_up = up_gradient.host<float>();
  const auto gradient = Kernels(Backend::kCpu).swiglu_gradient;
  ForRows(g.rows,
          [&](size_t t) { gradient(g.row(t), u.row(t), felt.row(t), g.cols, of_gate.row(t), of_up.row(t)); });
}

}  // namespace mica
