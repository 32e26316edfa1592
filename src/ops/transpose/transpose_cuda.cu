// A tile of 32 x 32 values goes through shared memory, so that both sides are read and written in rows.
#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kEdge = 32;
constexpr int kRows = 8;  // rows of a tile that are moved at a time

template <typename T>
__global__ void __launch_bounds__(kEdge* kRows) TransposeTiles(View<const T> in, View<T> out) {
  __shared__ T tile[kEdge][kEdge + 1];
  const size_t first_col = blockIdx.x * size_t{kEdge};
  for (size_t first_row = blockIdx.y * size_t{kEdge}; first_row < in.rows;
       first_row += gridDim.y * size_t{kEdge}) {
    __syncthreads();
    for (int i = threadIdx.y; i < kEdge; i += kRows) {
      const size_t r = first_row + i, c = first_col + threadIdx.x;
      if (r < in.rows && c < in.cols) tile[i][threadIdx.x] = in.row(r)[c];
    }
    __syncthreads();
    for (int i = threadIdx.y; i < kEdge; i += kRows) {
      const size_t r = first_row + threadIdx.x, c = first_col + i;
      if (r < in.rows && c < in.cols) out.row(c)[r] = tile[threadIdx.x][i];
    }
  }
}

}  // namespace

void Transpose(ConstTensor in, Tensor out) {
  if (in.empty()) return;
  DispatchFloat(in.dtype, [&](auto type) {
    using T = decltype(type);
    const dim3 blocks(Blocks(in.cols, kEdge), std::min(Blocks(in.rows, kEdge), 32768u));
    Launch(in.device, TransposeTiles<OnDevice<T>>, blocks, dim3(kEdge, kRows), 0, In<T>(in), Out<T>(out));
  });
}

}  // namespace mica::cuda
