// Tiles of 32 x 32 through shared memory, so that both sides are read and written in whole lines.
#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kTile = 32, kRows = 8;

__global__ void __launch_bounds__(kTile* kRows) TransposeTiles(View<const float> in, View<float> out) {
  __shared__ float tile[kTile][kTile + 1];
  const size_t first_col = blockIdx.x * size_t{kTile}, first_row = blockIdx.y * size_t{kTile};
  for (int r = threadIdx.y; r < kTile; r += kRows) {
    const size_t row = first_row + r, col = first_col + threadIdx.x;
    if (row < in.rows && col < in.cols) tile[r][threadIdx.x] = in.row(row)[col];
  }
  __syncthreads();
  for (int c = threadIdx.y; c < kTile; c += kRows) {
    const size_t col = first_col + c, row = first_row + threadIdx.x;
    if (row < in.rows && col < in.cols) out.row(col)[row] = tile[threadIdx.x][c];
  }
}

}  // namespace

Array Transposed(ConstTensor in) {
  Array out(in.cols, in.rows, DType::kF32, in.device);
  Launch(in.device, TransposeTiles, dim3(Blocks(in.cols, kTile), Blocks(in.rows, kTile)), dim3(kTile, kRows), 0,
         In<float>(in), Out<float>(out.view()));
  return out;
}

}  // namespace mica::cuda
