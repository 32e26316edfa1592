// Elementwise over rows; bound by memory.
#include "device/cuda_kernel.h"
#include "ops/activation/activation_cuda.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;

dim3 Grid(const ConstTensor& x) {
  return dim3(std::min(Blocks(x.cols, kThreads), 64u),
              static_cast<unsigned>(std::min<size_t>(x.rows, 16384)));
}

template <typename Body>
__device__ void ForValues(size_t rows, size_t cols, const Body& body) {
  for (size_t r = blockIdx.y; r < rows; r += gridDim.y)
    for (size_t c = blockIdx.x * size_t{kThreads} + threadIdx.x; c < cols; c += size_t{gridDim.x} * kThreads)
      body(r, c);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    GatedRows(Activation activation, View<const float> gate, View<const float> up, View<T> out) {
  ForValues(gate.rows, gate.cols, [&](size_t r, size_t c) {
    out.row(r)[c] = FromFloat<T>(GatedValue(activation, gate.row(r)[c], up.row(r)[c]));
  });
}

// With s = sigmoid(a(gate)): d/dgate = up s (1 + gate (1 - s) a'), d/dup = gate s.
__global__ void __launch_bounds__(kThreads)
    GatedGradientRows(Activation activation, View<const float> gate, View<const float> up,
                      View<const float> felt, View<float> of_gate, View<float> of_up) {
  ForValues(gate.rows, gate.cols, [&](size_t r, size_t c) {
    const float g = gate.row(r)[c], u = up.row(r)[c], f = felt.row(r)[c];
    const float s = 1.0f / (1.0f + expf(-GateArgument(activation, g)));
    of_gate.row(r)[c] = f * u * s * (1.0f + g * (1.0f - s) * GateSlope(activation, g));
    of_up.row(r)[c] = f * g * s;
  });
}

}  // namespace

void Gated(Activation activation, ConstTensor gate, ConstTensor up, Tensor out) {
  DispatchOperand(out.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(out.device, GatedRows<OnDevice<T>>, Grid(gate), kThreads, 0, activation, In<float>(gate),
           In<float>(up), Out<T>(out));
  });
}

void GatedGradient(Activation activation, ConstTensor gate, ConstTensor up, ConstTensor out_gradient,
                   Tensor gate_gradient, Tensor up_gradient) {
  Launch(gate.device, GatedGradientRows, Grid(gate), kThreads, 0, activation, In<float>(gate), In<float>(up),
         In<float>(out_gradient), Out<float>(gate_gradient), Out<float>(up_gradient));
}

}  // namespace mica::cuda
