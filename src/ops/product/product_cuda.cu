// cuBLAS multiplies, with FP32 results; one kernel each does what follows: biases, the turn by position and
// the split into heads, the gated activation.
#include "device/cuda_kernel.h"
#include "ops/activation/activation_cuda.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/cuda_handles.h"
#include "ops/product/product_cuda.h"
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

// out[h * tokens + t, i] = head h of (y[t] + bias), turned where there are angles. A thread takes the two
// channels that turn together. cosines, sines: [window, head_dim / 2], or null.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    SplitHeads(View<const float> y, const float* bias, const float* cosines, const float* sines,
               size_t window, size_t head_dim, T* out) {
  const size_t half = (head_dim + 1) / 2, heads = y.cols / head_dim, turn = head_dim / 2;
  for (size_t t = blockIdx.y; t < y.rows; t += gridDim.y) {
    const float* row = y.row(t);
    for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < heads * half;
         i += size_t{gridDim.x} * kThreads) {
      const size_t h = i / half, k = i % half, first = h * head_dim + k, second = first + half;
      const bool pair = k + half < head_dim;  // an odd head_dim has a channel alone
      float a = row[first], b = pair ? row[second] : 0.0f;
      if (bias != nullptr) {
        a += bias[first];
        if (pair) b += bias[second];
      }
      if (cosines != nullptr) {
        const float cosine = cosines[t % window * turn + k], sine = sines[t % window * turn + k];
        const float turned = a * cosine - b * sine;
        b = b * cosine + a * sine;
        a = turned;
      }
      T* to = out + (h * y.rows + t) * head_dim + k;
      to[0] = FromFloat<T>(a);
      if (pair) to[half] = FromFloat<T>(b);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    GateRows(View<const float> gate, const float* gate_bias, View<const float> up, const float* up_bias,
             View<T> out) {
  for (size_t r = blockIdx.y; r < gate.rows; r += gridDim.y) {
    for (size_t c = blockIdx.x * size_t{kThreads} + threadIdx.x; c < gate.cols;
         c += size_t{gridDim.x} * kThreads) {
      float g = gate.row(r)[c], u = up.row(r)[c];
      if (gate_bias != nullptr) g += gate_bias[c];
      if (up_bias != nullptr) u += up_bias[c];
      out.row(r)[c] = FromFloat<T>(Swiglu(g, u));
    }
  }
}

void Split(const ConstTensor& x, const Linear& linear, const RopeTable* rope, size_t window,
           const Tensor& out) {
  Array product(x.rows, linear.weights->outputs(), DType::kF32, x.device);
  Product(x, linear.weights->dense(), 0, product.view());
  const size_t head_dim = out.cols;
  const float* cosines = rope == nullptr ? nullptr : In<float>(rope->cosines()).data;
  const float* sines = rope == nullptr ? nullptr : In<float>(rope->sines()).data;
  DispatchOperand(out.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(x.device, SplitHeads<OnDevice<T>>, Grid(x.rows, (product.cols() + 1) / 2), kThreads, 0,
           In<float>(product.view()), BiasOf(linear.bias), cosines, sines, window, head_dim,
           Out<T>(out).data);
  });
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

void ProjectHeads(ConstTensor x, const Linear& q, const Linear& k, const Linear& v, const RopeTable& rope,
                  size_t window, Tensor q_out, Tensor k_out, Tensor v_out) {
  Split(x, q, &rope, window, q_out);
  Split(x, k, &rope, window, k_out);
  Split(x, v, nullptr, window, v_out);
}

void MultiplyGated(ConstTensor x, const Linear& gate, const Linear& up, Tensor out) {
  Array gates(x.rows, out.cols, DType::kF32, x.device), ups(x.rows, out.cols, DType::kF32, x.device);
  Product(x, gate.weights->dense(), 0, gates.view());
  Product(x, up.weights->dense(), 0, ups.view());
  DispatchOperand(out.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(x.device, GateRows<OnDevice<T>>, Grid(x.rows, out.cols), kThreads, 0, In<float>(gates.view()),
           BiasOf(gate.bias), In<float>(ups.view()), BiasOf(up.bias), Out<T>(out));
  });
}

}  // namespace mica::cuda
