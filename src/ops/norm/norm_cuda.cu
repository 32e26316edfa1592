// A block of threads a row; sums in FP32 in a fixed order.
#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/norm/norm_cuda.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = kNormThreads;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    NormRows(View<const float> x, const float* weight, float epsilon, View<T> out) {
  const float* in = x.row(blockIdx.x);
  const float factor = NormFactor(in, x.cols, epsilon);
  T* to = out.row(blockIdx.x);
  for (size_t c = threadIdx.x; c < x.cols; c += kThreads)
    to[c] = FromFloat<T>(NormedValue(in[c], factor, weight[c]));
}

// With r = 1 / sqrt(mean x^2 + epsilon): gradient_c += r w_c g_c - x_c r^3 / n sum_i w_i g_i x_i.
__global__ void __launch_bounds__(kThreads)
    AddNormGradientRows(View<const float> x, const float* weight, View<const float> felt, float epsilon,
                        View<float> gradient) {
  const float *in = x.row(blockIdx.x), *g = felt.row(blockIdx.x);
  float squares = 0, dot = 0;
  for (size_t c = threadIdx.x; c < x.cols; c += kThreads) {
    squares += in[c] * in[c];
    dot += in[c] * g[c] * weight[c];
  }
  const float n = static_cast<float>(x.cols);
  const float r = 1.0f / sqrtf(BlockSum<kThreads>(squares) / n + epsilon);
  const float along = BlockSum<kThreads>(dot) * r * r * r / n;
  float* to = gradient.row(blockIdx.x);
  for (size_t c = threadIdx.x; c < x.cols; c += kThreads) to[c] += r * weight[c] * g[c] - in[c] * along;
}

}  // namespace

void RmsNorm(ConstTensor x, ConstTensor weight, float epsilon, Tensor out) {
  DispatchOperand(out.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(x.device, NormRows<OnDevice<T>>, x.rows, kThreads, 0, In<float>(x), In<float>(weight).data,
           epsilon, Out<T>(out));
  });
}

void AddRmsNormGradient(ConstTensor x, ConstTensor weight, ConstTensor y_gradient, float epsilon,
                        Tensor gradient) {
  Launch(x.device, AddNormGradientRows, x.rows, kThreads, 0, In<float>(x), In<float>(weight).data,
         In<float>(y_gradient), epsilon, Out<float>(gradient));
}

}  // namespace mica::cuda
