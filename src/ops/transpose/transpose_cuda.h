// Values that change places with their rows and columns go through tiles in shared memory, so that both sides
// are read and written in whole lines; included by *_cuda.cu only.
#pragma once

#include "device/cuda_kernel.h"

namespace mica::cuda {

inline constexpr int kTileEdge = 32, kTileLines = 8;  // of a tile; moved at a time
inline constexpr unsigned kMostTileBlocks = 32768;
inline constexpr dim3 kTransposeThreads(kTileEdge, kTileLines);

// Blocks for a matrix [rows, cols] cut into tiles.
inline dim3 TransposeBlocks(size_t rows, size_t cols) {
  return {Blocks(cols, kTileEdge), std::min(Blocks(rows, kTileEdge), kMostTileBlocks)};
}

// For every (r, c) of a matrix [rows, cols]: put(r, c, get(r, c)). Neighbouring threads have neighbouring
// columns in get and neighbouring rows in put, or the other way with kByColumn. Value: of up to 4 bytes. All
// threads of a launch with TransposeBlocks and kTransposeThreads call it.
template <typename Value, bool kByColumn = false, typename Get, typename Put>
__device__ void ThroughTiles(size_t rows, size_t cols, const Get& get, const Put& put) {
  __shared__ Value tile[kTileEdge][kTileEdge + 1];
  const size_t first_col = blockIdx.x * size_t{kTileEdge};
  for (size_t first_row = blockIdx.y * size_t{kTileEdge}; first_row < rows;
       first_row += gridDim.y * size_t{kTileEdge}) {
    // Place of the value that a thread has in its turn, along rows or along columns.
    const auto for_values = [&](bool along_columns, const auto& use) {
      __syncthreads();
      for (int line = threadIdx.y; line < kTileEdge; line += kTileLines) {
        const int i = along_columns ? static_cast<int>(threadIdx.x) : line;
        const int j = along_columns ? line : static_cast<int>(threadIdx.x);
        if (first_row + i < rows && first_col + j < cols) use(first_row + i, first_col + j, tile[i][j]);
      }
    };
    for_values(kByColumn, [&](size_t r, size_t c, Value& value) { value = get(r, c); });
    for_values(!kByColumn, [&](size_t r, size_t c, Value& value) { put(r, c, value); });
  }
}

template <typename T>
__global__ void __launch_bounds__(kTileEdge* kTileLines) TransposeTiles(View<const T> in, View<T> out) {
  ThroughTiles<T>(
      in.rows, in.cols, [&](size_t r, size_t c) { return in.row(r)[c]; },
      [&](size_t r, size_t c, T value) { out.row(c)[r] = value; });
}

}  // namespace mica::cuda
