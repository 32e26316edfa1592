// Differences by a kernel, products by cuBLAS.
#include <algorithm>

#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/linalg/matrix_product_cuda.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 256;
constexpr size_t kPortion = 2048;  // tokens of one sum in the tensor cores, which cut it off: a usual run

template <typename T>
__global__ void __launch_bounds__(kThreads) Subtract(View<const T> a, View<const T> b, View<T> out) {
  const size_t c = blockIdx.x * size_t{kThreads} + threadIdx.x;
  if (c >= out.cols) return;
  for (size_t r = blockIdx.y; r < out.rows; r += gridDim.y)
    out.row(r)[c] = FromFloat<T>(ToFloat(a.row(r)[c]) - ToFloat(b.row(r)[c]));
}

}  // namespace

void AddDriftSum(ConstTensor original, ConstTensor moved, ConstTensor x, Tensor sum) {
  if (original.cols == 0) return;
  DispatchOperand(x.dtype, [&](auto type) {
    using T = decltype(type);
    const size_t most = std::min(kPortion, x.rows);
    Array difference(most, original.cols, x.dtype, x.device);
    for (size_t first = 0; first < x.rows; first += kPortion) {
      const size_t count = std::min(kPortion, x.rows - first);
      const Tensor part = difference.view().Rows(0, count);
      const dim3 blocks(Blocks(part.cols, kThreads), static_cast<unsigned>(count));
      Launch(x.device, Subtract<OnDevice<T>>, blocks, kThreads, 0, In<T>(original.Rows(first, count)),
             In<T>(moved.Rows(first, count)), Out<T>(part));
      if constexpr (std::is_same_v<T, BF16>) {
        ProductOfColumns(part, x.Rows(first, count), 1.0f, sum);
      } else {
        Product(true, false, 1.0f, part, x.Rows(first, count), 1.0f, sum);
      }
    }
  });
}

}  // namespace mica::cuda
