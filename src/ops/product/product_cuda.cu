// cuBLAS multiplies, with FP32 results; one kernel each does what follows: biases, the turn by position and
// the split into heads, the gated activation.
#include "device/cuda_kernel.h"
#include "ops/activation/activation_cuda.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/cuda_handles.h"
#include "ops/product/product_cuda.h"
#include "ops/rope/rope_cuda.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;

dim3 Grid(size_t rows, size_t steps) {
  return dim3(std::min(Blocks(steps, kThreads), 64u), static_cast<unsigned>(std::min<size_t>(rows, 32768)));
}

// The bias of a linear layer, or null.
const float* BiasOf(const ConstTensor& bias) { return bias.empty() ? nullptr : In<float>(bias).data; }

__global__ void __launch_bounds__(kThreads) AddBias(const float* bias, View<float> y) {
  for (size_t r = blockIdx.y; r < y.rows; r += gridDim.y)
    for (size_t c = blockIdx.x * size_t{kThreads} + threadIdx.x; c < y.cols;
         c += size_t{gridDim.x} * kThreads)
      y.row(r)[c] += bias[c];
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    GateRows(View<const float> gate, const float* gate_bias, View<const float> up, const float* up_bias,
             Activation activation, View<T> out) {
  for (size_t r = blockIdx.y; r < gate.rows; r += gridDim.y) {
    for (size_t c = blockIdx.x * size_t{kThreads} + threadIdx.x; c < gate.cols;
         c += size_t{gridDim.x} * kThreads) {
      float g = gate.row(r)[c], u = up.row(r)[c];
      if (gate_bias != nullptr) g += gate_bias[c];
      if (up_bias != nullptr) u += up_bias[c];
      out.row(r)[c] = FromFloat<T>(GatedValue(activation, g, u));
    }
  }
}

void Project(const ConstTensor& x, const Linear& linear, const RopeTable* rope, size_t window,
             const Tensor& out) {
  Array product(x.rows, linear.weights->outputs(), DType::kF32, x.device);
  Product(x, linear.weights->dense(), 0, product.view());
  Split(product.view(), BiasOf(linear.bias), rope, window, out);
}

}  // namespace

void Product(ConstTensor x, ConstTensor w, float beta, Tensor y) {
  MICA_CHECK(x.dtype == w.dtype);
  MICA_CHECK(x.cols == w.cols);
  MICA_CHECK(y.rows == x.rows);
  MICA_CHECK(y.cols == w.rows);
  MICA_CHECK(y.dtype == DType::kF32);
  if (y.empty()) return;
  // cuBLAS has columns behind one another: y^T = w x^T.
  const float alpha = 1;
  const cudaDataType_t type = x.dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F;
  const auto size = [](size_t n) { return static_cast<int64_t>(n); };
  CheckCublas(
      cublasGemmEx_64(Cublas(x.device), CUBLAS_OP_T, CUBLAS_OP_N, size(w.rows), size(x.rows), size(x.cols),
                      &alpha, w.data, type, size(w.stride), x.data, type, size(x.stride), &beta, y.data,
                      CUDA_R_32F, size(y.stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
      "a product");
}

void MultiplyAdd(ConstTensor x, const PreparedWeights& w, ConstTensor bias, Tensor y) {
  Product(x, w.dense(), 1, y);
  if (!bias.empty())
    Launch(y.device, AddBias, Grid(y.rows, y.cols), kThreads, 0, In<float>(bias).data, Out<float>(y));
}

void Multiply(ConstTensor x, const PreparedWeights& w, ConstTensor bias, Tensor y) {
  Product(x, w.dense(), 0, y);
  if (!bias.empty())
    Launch(y.device, AddBias, Grid(y.rows, y.cols), kThreads, 0, In<float>(bias).data, Out<float>(y));
}

void ProjectHeads(ConstTensor x, const Linear& q, const Linear& k, const Linear& v, const RopeTable* q_rope,
                  const RopeTable* k_rope, size_t window, Tensor q_out, Tensor k_out, Tensor v_out) {
  Project(x, q, q_rope, window, q_out);
  Project(x, k, k_rope, window, k_out);
  Project(x, v, nullptr, window, v_out);
}

void MultiplyGated(ConstTensor x, const Linear& gate, const Linear& up, Activation activation, Tensor out) {
  Array gates(x.rows, out.cols, DType::kF32, x.device), ups(x.rows, out.cols, DType::kF32, x.device);
  Product(x, gate.weights->dense(), 0, gates.view());
  Product(x, up.weights->dense(), 0, ups.view());
  DispatchOperand(out.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(x.device, GateRows<OnDevice<T>>, Grid(x.rows, out.cols), kThreads, 0, In<float>(gates.view()),
           BiasOf(gate.bias), In<float>(ups.view()), BiasOf(up.bias), activation, Out<T>(out));
  });
}

}  // namespace mica::cuda
