// cuBLAS takes columns where we have rows: it is asked for c^T = op(b)^T op(a)^T.
#include <algorithm>
#include <limits>

#include "device/cuda_kernel.h"
#include "ops/linalg/cuda_handles.h"
#include "ops/linalg/matrix_product_cuda.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
// Products that tensor cores sum from one end to the other: they cut sums off, what is lost grows with it.
constexpr size_t kTf32Depth = 2048;

int Int(size_t value) {
  MICA_CHECK(value <= static_cast<size_t>(std::numeric_limits<int>::max()));
  return static_cast<int>(value);
}

// Rows of a matrix as cuBLAS has them: a stride of at least 1.
int Stride(const ConstTensor& x) { return Int(std::max<size_t>({x.stride, x.cols, 1})); }

cublasOperation_t Operation(bool transpose) { return transpose ? CUBLAS_OP_T : CUBLAS_OP_N; }

void Multiply(bool transpose_a, bool transpose_b, float alpha, const ConstTensor& a, const ConstTensor& b,
              float beta, const Tensor& c, const Batch& batch, cublasComputeType_t compute) {
  const size_t depth = transpose_a ? a.rows : a.cols;
  const cublasHandle_t handle = Cublas(c.device);
  const cublasOperation_t of_a = Operation(transpose_a), of_b = Operation(transpose_b);
  const int rows = Int(c.rows), cols = Int(c.cols), sums = Int(depth);
  const auto step = [](size_t values) { return static_cast<long long>(values); };
  const bool alone = batch.count == 1 && batch.c_step == 0;
  CheckCublas(
      alone ? cublasGemmEx(handle, of_b, of_a, cols, rows, sums, &alpha, b.data, CUDA_R_32F, Stride(b),
                           a.data, CUDA_R_32F, Stride(a), &beta, c.data, CUDA_R_32F, Stride(c), compute,
                           CUBLAS_GEMM_DEFAULT)
            : cublasGemmStridedBatchedEx(handle, of_b, of_a, cols, rows, sums, &alpha, b.data, CUDA_R_32F,
                                         Stride(b), step(batch.b_step), a.data, CUDA_R_32F, Stride(a),
                                         step(batch.a_step), &beta, c.data, CUDA_R_32F, Stride(c),
                                         step(batch.c_step), Int(batch.count), compute, CUBLAS_GEMM_DEFAULT),
      "a product");
}

// The nearest value of 11 bits.
__device__ inline float ToTf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return __uint_as_float(bits);
}

// x = high + low but for 2^-22 of it; both dense, matrices `step` apart one after the other. A thread a
// value; rows of all matrices by blockIdx.y.
__global__ void __launch_bounds__(kThreads)
    Split(View<const float> x, size_t step, size_t count, View<float> high, View<float> low) {
  const size_t c = blockIdx.x * size_t{kThreads} + threadIdx.x;
  if (c >= x.cols) return;
  for (size_t r = blockIdx.y; r < x.rows * count; r += gridDim.y) {
    const float value = x.row(r % x.rows)[r / x.rows * step + c];
    const float first = ToTf32(value);
    high.row(r)[c] = first;
    low.row(r)[c] = ToTf32(value - first);
  }
}

struct Halves {
  Array high, low;
  size_t rows;  // of one matrix

  Halves(const ConstTensor& x, size_t step, size_t count)
      : high(x.rows * count, x.cols, DType::kF32, x.device),
        low(x.rows * count, x.cols, DType::kF32, x.device),
        rows(x.rows) {
    Launch(x.device, Split, dim3(Blocks(x.cols, kThreads), Blocks(std::min<size_t>(x.rows * count, 8192), 1)),
           kThreads, 0, In<float>(x), step, count, Out<float>(high.view()), Out<float>(low.view()));
  }
  ConstTensor First(const Array& half) const { return half.view().Rows(0, rows); }
};

void MultiplyHalves(bool transpose_a, bool transpose_b, float alpha, const ConstTensor& a,
                    const ConstTensor& b, float beta, const Tensor& c, const Batch& batch) {
  const Halves of_a(a, batch.a_step, batch.count), of_b(b, batch.b_step, batch.count);
  const Batch dense{batch.count, a.rows * a.cols, b.rows * b.cols, batch.c_step};
  const size_t depth = transpose_a ? a.rows : a.cols;
  float keep = beta;
  for (size_t first = 0; first < depth; first += kTf32Depth) {
    const size_t count = std::min(kTf32Depth, depth - first);
    const auto multiply = [&](const Array& x, const Array& y) {
      const ConstTensor left = of_a.First(x), right = of_b.First(y);
      Multiply(transpose_a, transpose_b, alpha,
               transpose_a ? left.Rows(first, count) : left.Cols(first, count),
               transpose_b ? right.Cols(first, count) : right.Rows(first, count), keep, c, dense,
               CUBLAS_COMPUTE_32F_FAST_TF32);
      keep = 1;
    };
    // The small ones first.
    multiply(of_a.low, of_b.high);
    multiply(of_a.high, of_b.low);
    multiply(of_a.high, of_b.high);
  }
}

}  // namespace

void Product(bool transpose_a, bool transpose_b, float alpha, ConstTensor a, ConstTensor b, float beta,
             Tensor c, const Batch& batch, ProductPrecision precision) {
  const size_t depth = transpose_a ? a.rows : a.cols;
  MICA_CHECK((transpose_a ? a.cols : a.rows) == c.rows);
  MICA_CHECK((transpose_b ? b.rows : b.cols) == c.cols);
  MICA_CHECK(depth == (transpose_b ? b.cols : b.rows));
  MICA_CHECK(a.dtype == DType::kF32);
  MICA_CHECK(b.dtype == DType::kF32);
  MICA_CHECK(c.dtype == DType::kF32);
  MICA_CHECK(a.device == c.device);
  MICA_CHECK(b.device == c.device);
  if (c.empty() || batch.count == 0) return;
  if (precision == ProductPrecision::k3xTf32 && depth > 0) {
    MultiplyHalves(transpose_a, transpose_b, alpha, a, b, beta, c, batch);
  } else {
    Multiply(transpose_a, transpose_b, alpha, a, b, beta, c, batch, CUBLAS_COMPUTE_32F);
  }
}

void TensorCoreProduct(bool transpose_b, ConstTensor a, ConstTensor b, float beta, Tensor c, float alpha) {
  MICA_CHECK(a.rows == c.rows);
  MICA_CHECK(a.cols == (transpose_b ? b.cols : b.rows));
  MICA_CHECK(c.cols == (transpose_b ? b.rows : b.cols));
  MICA_CHECK(a.dtype == b.dtype);
  MICA_CHECK(a.dtype == DType::kBF16 || a.dtype == DType::kF32);
  MICA_CHECK(c.dtype == DType::kF32);
  if (c.empty() || a.cols == 0) return;
  const bool bf16 = a.dtype == DType::kBF16;
  const cudaDataType type = bf16 ? CUDA_R_16BF : CUDA_R_32F;
  CheckCublas(cublasGemmEx(Cublas(c.device), Operation(transpose_b), CUBLAS_OP_N, Int(c.cols), Int(c.rows),
                           Int(a.cols), &alpha, b.data, type, Stride(b), a.data, type, Stride(a), &beta,
                           c.data, CUDA_R_32F, Stride(c),
                           bf16 ? CUBLAS_COMPUTE_32F : CUBLAS_COMPUTE_32F_FAST_TF32, CUBLAS_GEMM_DEFAULT),
              "a product");
}

void ProductOfColumns(ConstTensor a, ConstTensor b, float beta, Tensor sum) {
  MICA_CHECK(a.rows == b.rows);
  MICA_CHECK(a.cols == sum.rows);
  MICA_CHECK(b.cols == sum.cols);
  MICA_CHECK(a.dtype == DType::kBF16);
  MICA_CHECK(b.dtype == DType::kBF16);
  MICA_CHECK(sum.dtype == DType::kF32);
  if (sum.empty() || a.rows == 0) return;
  const float one = 1;
  CheckCublas(cublasGemmEx(Cublas(sum.device), CUBLAS_OP_N, CUBLAS_OP_T, Int(sum.cols), Int(sum.rows),
                           Int(a.rows), &one, b.data, CUDA_R_16BF, Stride(b), a.data, CUDA_R_16BF, Stride(a),
                           &beta, sum.data, CUDA_R_32F, Stride(sum), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
              "a product");
}

}  // namespace mica::cuda
