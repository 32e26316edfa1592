// A tile of sums of products by one block of threads: included by *_cuda.cu only.
//
// A block of threads a tile of 128 x 128 sums, tokens in steps through shared memory. Tensor cores cut their FP32 sums
// off instead of rounding them, and a sum that is taken from one end to the other loses half a unit of its last place a
// step, always downward. So they sum kChain tokens; those sums are added by ordinary, rounding additions for kPortion
// tokens, all in registers, and portions in FP64.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/cuda_kernel.h"

namespace mica::cuda::gram {

inline constexpr int kTile = 128;
inline constexpr int kThreads = 256;
inline constexpr int kChain = 64;      // tokens of one chain of sums
inline constexpr int kPortion = 2048;  // tokens that are summed in FP32: a usual run
// Rows of tiles that are worked on together: with some 11 columns of tiles at once, each panel is read from memory once
// a band.
inline constexpr int kBand = 12;
inline constexpr int kStages = 4;  // steps on their way through shared memory

// Where the tiles lie: blocks of columns, each a triangle of tiles.
struct Layout {
  size_t cols, block;  // block: columns of a block
  uint32_t edge;       // tiles an edge of a block

  __host__ __device__ size_t tiles() const { return size_t{edge} * (edge + 1) / 2; }  // of a block
  __host__ __device__ size_t blocks() const { return (cols + block - 1) / block; }
};

// Values of x as tiles read them: tile column i of block k begins at column k * block_stride + i * kTile.
template <typename T>
struct Operand {
  const T* data;
  size_t stride, cols;  // in values; beyond cols there is nothing
  size_t block_stride;
  size_t tokens;
};

struct Place {
  uint32_t row, col;
};

// Tile `index` of a triangle, row by row: row (row + 1) / 2 + col = index.
__host__ __device__ inline Place InTriangle(uint32_t index) {
  auto row = static_cast<uint32_t>((sqrt(8.0 * index + 1.0) - 1.0) / 2.0);
  while (row * (row + 1) / 2 > index) --row;
  while ((row + 1) * (row + 2) / 2 <= index) ++row;
  return {row, index - row * (row + 1) / 2};
}

// The tile that the index-th block of threads of a triangle takes: bands of kBand rows, in each column by
// column.
__host__ __device__ inline Place InBands(uint32_t index, uint32_t edge) {
  const uint32_t first = InTriangle(index).row / kBand * kBand;  // a band begins where its first row does
  const uint32_t rows = edge - first < kBand ? edge - first : kBand;
  const uint32_t local = index - first * (first + 1) / 2;
  if (local < first * rows) return {first + local % rows, local / rows};
  const Place place = InTriangle(local - first * rows);
  return {first + place.row, first + place.col};
}

__device__ inline uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes to shared memory, zeros unless `valid`; `from` is always an address that exists.
__device__ inline void CopyAsync(uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ inline void LoadTransposed(uint32_t address, uint32_t (&to)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
__device__ inline void MultiplyAdd(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&sum)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The sums of one thread, in the order of the tensor cores' results for a warp of 64 x 32: [16 rows][8
// cols][row + 8, col + 1].
using Sums = float[4][4][4];

// Row and column, within a tile, of sum [m][n][e] of a thread.
__host__ __device__ inline uint32_t RowOf(uint32_t thread, int m, int e) {
  return thread / 128 * 64 + m * 16 + e / 2 * 8 + thread % 32 / 4;
}
__host__ __device__ inline uint32_t ColOf(uint32_t thread, int n, int e) {
  return thread / 32 % 4 * 32 + n * 8 + thread % 4 * 2 + e % 2;
}
// Where in the FP64 tile the value of a row and column lies: what follows from RowOf, ColOf and AddTo.
__host__ __device__ inline size_t OffsetOf(uint32_t row, uint32_t col) {
  const uint32_t thread = row / 64 * 128 + col / 32 * 32 + row % 8 * 4 + col % 8 / 2;
  const uint32_t pair = (row % 64 / 16 * 4 + col % 32 / 8) * 2 + row % 16 / 8;
  return (size_t{pair} * kThreads + thread) * 2 + col % 2;
}

__device__ inline void AddTo(double* tile, Sums& sums) {
  double2* to = reinterpret_cast<double2*>(tile) + threadIdx.x;
#pragma unroll
  for (int m = 0; m < 4; ++m) {
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        double2* pair = to + ((m * 4 + n) * 2 + half) * kThreads;
        double2 value = *pair;
        value.x += sums[m][n][half * 2];
        value.y += sums[m][n][half * 2 + 1];
        *pair = value;
        sums[m][n][half * 2] = sums[m][n][half * 2 + 1] = 0;
      }
    }
  }
}

// Asks for the tile, so that it is near when the portion ends.
__device__ inline void Prefetch(const double* tile) {
  constexpr int kLine = 128;
  const char* bytes = reinterpret_cast<const char*>(tile);
  for (int line = threadIdx.x; line < kTile * kTile * int{sizeof(double)} / kLine; line += kThreads)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(bytes + line * kLine));
}

// How T goes through shared memory: steps of kStep tokens, two panels of kTile columns each.
template <typename T>
struct Panels {
  static constexpr int kStep = sizeof(T) == 2 ? 32 : 16;
  static constexpr int kChunk = 16 / sizeof(T);   // values of one copy
  static constexpr int kChunks = kTile / kChunk;  // of a token
  static constexpr int kPanelBytes = kStep * kTile * sizeof(T);
  static constexpr int kStageBytes = 2 * kPanelBytes;
  static constexpr int kBytes = kStages * kStageBytes;
  // Byte of a token's chunk in its panel. Eight tokens of BF16 at one chunk are what ldmatrix reads: the
  // exchange spreads them over all banks.
  __device__ static int Byte(int token, int chunk) {
    const int place = sizeof(T) == 2 ? chunk ^ (token & 7) : chunk;
    return (token * kChunks + place) * 16;
  }
};

// Starts to copy tokens [first, first + kStep) of the columns from row_col and from col_col on.
template <typename T>
__device__ inline void LoadStep(const Operand<T>& x, size_t first, size_t row_col, size_t col_col,
                                uint32_t stage) {
  using P = Panels<T>;
#pragma unroll
  for (int i = 0; i < P::kStep * P::kChunks / kThreads; ++i) {
    const int index = i * kThreads + static_cast<int>(threadIdx.x);
    const int token = index / P::kChunks, chunk = index % P::kChunks;
    const size_t t = first + token, from_row = row_col + chunk * P::kChunk,
                 from_col = col_col + chunk * P::kChunk;
    const bool row_valid = t < x.tokens && from_row < x.cols, col_valid = t < x.tokens && from_col < x.cols;
    const uint32_t to = stage + P::Byte(token, chunk);
    CopyAsync(to, row_valid ? x.data + t * x.stride + from_row : x.data, row_valid);
    CopyAsync(to + P::kPanelBytes, col_valid ? x.data + t * x.stride + from_col : x.data, col_valid);
  }
}

// sums += the products of one step.
__device__ inline void MultiplyStep(const __nv_bfloat16*, const char*, uint32_t stage, Sums& sums) {
  using P = Panels<__nv_bfloat16>;
  const int lane = threadIdx.x % kWarp, matrix = lane / 8, row = lane % 8;
  const int row_base = threadIdx.x / 128 * 64, col_base = threadIdx.x / 32 % 4 * 32;
#pragma unroll
  for (int k = 0; k < P::kStep; k += 16) {
    uint32_t a[4][4], b[2][4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const int chunk = (row_base + m * 16) / P::kChunk + matrix % 2;
      LoadTransposed(stage + P::Byte(k + matrix / 2 * 8 + row, chunk), a[m]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      const int chunk = (col_base + n * 16) / P::kChunk + matrix / 2;
      LoadTransposed(stage + P::kPanelBytes + P::Byte(k + matrix % 2 * 8 + row, chunk), b[n]);
    }
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) MultiplyAdd(a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1], sums[m][n]);
    }
  }
}
__device__ inline void MultiplyStep(const float*, const char* stage, uint32_t, Sums& sums) {
  using P = Panels<float>;
  const float* rows = reinterpret_cast<const float*>(stage) + RowOf(threadIdx.x, 0, 0);
  const float* cols = reinterpret_cast<const float*>(stage + P::kPanelBytes) + ColOf(threadIdx.x, 0, 0);
#pragma unroll 4
  for (int k = 0; k < P::kStep; ++k) {
    float a[4][2];
    float2 b[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      a[m][0] = rows[k * kTile + m * 16];
      a[m][1] = rows[k * kTile + m * 16 + 8];
    }
#pragma unroll
    for (int n = 0; n < 4; ++n) b[n] = *reinterpret_cast<const float2*>(cols + k * kTile + n * 8);
#pragma unroll
    for (int m = 0; m < 4; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        sums[m][n][0] += a[m][0] * b[n].x;
        sums[m][n][1] += a[m][0] * b[n].y;
        sums[m][n][2] += a[m][1] * b[n].x;
        sums[m][n][3] += a[m][1] * b[n].y;
      }
    }
  }
}

// sums: [blocks of columns][tiles of a triangle][kTile * kTile]; blockIdx.x: which.
template <typename T>
__global__ void __launch_bounds__(kThreads, 1) AddTiles(Operand<T> x, Layout layout, double* sums) {
  using P = Panels<T>;
  extern __shared__ __align__(128) char shared[];
  const uint32_t block = blockIdx.x / static_cast<uint32_t>(layout.tiles());
  const Place place = InBands(blockIdx.x % static_cast<uint32_t>(layout.tiles()), layout.edge);
  // Of a short last block there may be none.
  if (size_t{place.row} * kTile >= layout.cols - block * layout.block) return;
  double* tile =
      sums + (block * layout.tiles() + size_t{place.row} * (place.row + 1) / 2 + place.col) * (kTile * kTile);
  const size_t row_col = block * x.block_stride + size_t{place.row} * kTile,
               col_col = block * x.block_stride + size_t{place.col} * kTile;
  const uint32_t buffer = SharedAddress(shared);
  const size_t steps = (x.tokens + P::kStep - 1) / P::kStep;
  for (int s = 0; s < kStages - 1; ++s) {
    LoadStep(x, size_t{P::kStep} * s, row_col, col_col, buffer + s * P::kStageBytes);
    CommitCopies();
  }
  Sums chain = {}, portion = {};
  for (size_t s = 0; s < steps; ++s) {
    WaitForCopies<kStages - 2>();
    __syncthreads();  // step s is there for all, and all are done with the one before it
    const size_t next = s + kStages - 1;
    LoadStep(x, next * P::kStep, row_col, col_col, buffer + next % kStages * P::kStageBytes);
    CommitCopies();
    if (s % (kPortion / P::kStep) == 0) Prefetch(tile);
    MultiplyStep(static_cast<const T*>(nullptr), shared + s % kStages * P::kStageBytes,
                 buffer + static_cast<uint32_t>(s % kStages) * P::kStageBytes, chain);
    const bool last = s + 1 == steps;
    if ((s + 1) % (kChain / P::kStep) == 0 || last) {
#pragma unroll
      for (int m = 0; m < 4; ++m) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            portion[m][n][e] += chain[m][n][e];
            chain[m][n][e] = 0;
          }
        }
      }
    }
    if ((s + 1) % (kPortion / P::kStep) == 0 || last) AddTo(tile, portion);
  }
  WaitForCopies<0>();
}

}  // namespace mica::cuda::gram
