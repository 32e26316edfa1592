// cuSOLVER takes columns where we have rows: a lower triangle of ours is an upper one of its.
#include <algorithm>

#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/cuda_handles.h"
#include "ops/linalg/linalg.h"
#include "ops/linalg/matrix_product_cuda.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kCorner = 64;  // edge of the diagonal blocks that are inverted one value after the other

// Zeros above the diagonal of a; bad = 1 where a value on it is not finite or not positive. A block of
// threads a row.
__global__ void __launch_bounds__(kThreads) FinishFactor(View<float> a, int* bad) {
  const size_t i = blockIdx.x;
  const float pivot = a.row(i)[i];
  if (threadIdx.x == 0 && !(pivot > 0 && isfinite(pivot))) *bad = 1;  // all write the same
  for (size_t c = i + 1 + threadIdx.x; c < a.cols; c += kThreads) a.row(i)[c] = 0;
}

// Inverts the lower triangles of kCorner rows along the diagonal: a block of threads each, a thread a column
// of the inverse, downward.
__global__ void __launch_bounds__(kCorner) InvertCorners(View<float> l) {
  __shared__ float from[kCorner][kCorner + 1], to[kCorner][kCorner];
  const size_t start = blockIdx.x * size_t{kCorner};
  const int width = static_cast<int>(min(size_t{kCorner}, l.rows - start)), c = threadIdx.x;
  for (int r = 0; r < width; ++r) from[r][c] = c <= r ? l.row(start + r)[start + c] : 0.0f;
  __syncthreads();
  for (int r = 0; r < width; ++r) {
    float sum = r == c ? 1.0f : 0.0f;
    for (int k = 0; k < r; ++k) sum -= from[r][k] * to[k][c];  // its own column only
    to[r][c] = sum / from[r][r];
  }
  for (int r = c; r < width; ++r) l.row(start + r)[start + c] = to[r][c];
}

Tensor Part(const Tensor& a, size_t row, size_t rows, size_t col, size_t cols) {
  return a.Rows(row, rows).Cols(col, cols);
}

// l: its diagonal blocks of `size` rows are inverted already, from `start` on; inverts those of twice the
// size, `count` of them, whose lower right part has `rest` rows: [A 0; B C]^-1 = [A^-1 0; -C^-1 B A^-1 C^-1].
void JoinInverses(const Tensor& l, size_t start, size_t size, size_t rest, size_t count, Array& buffer) {
  const Tensor a = Part(l, start, size, start, size), b = Part(l, start + size, rest, start, size),
               c = Part(l, start + size, rest, start + size, rest);
  const Tensor product = buffer.view();  // [count * rest, size]
  const Tensor first(product.data, rest, size, size, DType::kF32, product.device);
  const size_t step = 2 * size * (l.stride + 1), dense = rest * size;
  Product(false, false, 1.0f, b, a, 0.0f, first, {count, step, step, dense});
  Product(false, false, -1.0f, c, first, 0.0f, b, {count, step, dense, step});
}

}  // namespace

void Gemm(bool transpose_a, bool transpose_b, float alpha, ConstTensor a, ConstTensor b, float beta,
          Tensor c) {
  Product(transpose_a, transpose_b, alpha, a, b, beta, c);
}

void GemmAt(ProductPrecision precision, bool transpose_a, bool transpose_b, float alpha, ConstTensor a,
            ConstTensor b, float beta, Tensor c) {
  Product(transpose_a, transpose_b, alpha, a, b, beta, c, {}, precision);
}

bool CholeskyLower(Tensor a) {
  MICA_CHECK(a.rows == a.cols);
  if (a.empty()) return true;
  const View<float> values = Out<float>(a);
  const int n = static_cast<int>(a.rows), stride = static_cast<int>(a.stride);
  const cusolverDnHandle_t solver = Cusolver(a.device);
  int work_values = 0;
  CheckCusolver(
      cusolverDnSpotrf_bufferSize(solver, CUBLAS_FILL_MODE_UPPER, n, values.data, stride, &work_values),
      "a factorisation");
  Array work(1, static_cast<size_t>(std::max(work_values, 1)), DType::kF32, a.device),
      codes(1, 2, DType::kI32, a.device);
  FillZero(codes.view());
  int* code = reinterpret_cast<int*>(codes.view().data);
  CheckCusolver(cusolverDnSpotrf(solver, CUBLAS_FILL_MODE_UPPER, n, values.data, stride,
                                 Out<float>(work.view()).data, work_values, code),
                "a factorisation");
  Launch(a.device, FinishFactor, Blocks(a.rows, 1), kThreads, 0, values, code + 1);
  const Array here = CopyTo(Device::Cpu(), codes.view());
  const int* found = reinterpret_cast<const int*>(here.view().data);
  MICA_CHECK(found[0] >= 0);  // negative: an argument of ours
  return found[0] == 0 && found[1] == 0;
}

// Diagonal blocks first, then pairs of neighbours of 64, 128, 256 ... rows, all of a size at once.
void InvertLowerTriangle(Tensor l) {
  MICA_CHECK(l.rows == l.cols);
  const size_t n = l.rows;
  if (n == 0) return;
  Launch(l.device, InvertCorners, Blocks(n, kCorner), kCorner, 0, Out<float>(l));
  Array buffer;
  for (size_t size = kCorner; size < n; size *= 2) {
    const size_t pairs = n / (2 * size), start = pairs * 2 * size;
    if (pairs > 0) {
      buffer.Resize(pairs * size, size, DType::kF32, l.device);
      JoinInverses(l, 0, size, size, pairs, buffer);
    }
    if (n - start > size) {
      buffer.Resize(n - start - size, size, DType::kF32, l.device);
      JoinInverses(l, start, size, n - start - size, 1, buffer);
    }
  }
}

}  // namespace mica::cuda
