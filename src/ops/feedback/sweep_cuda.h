// What feedback and refinement share on a CUDA device: grids of a row, and the recursion over the columns of
// a block. Included by *_cuda.cu only.
//
// Eight lanes take a row, so a warp four and a block of threads sixteen. The row stands in shared memory; the
// lanes of a row hold all the same scalars (grid, loss, changes), each updates every eighth run of four
// columns. Sums and roundings follow the kernels of the processor (feedback.cc) operation by operation: no
// product may be joined with a sum where those are not, hence the intrinsics.
#pragma once

#include <algorithm>

#include "device/cuda_kernel.h"
#include "ops/feedback/solver_state.h"

namespace mica::cuda {

inline constexpr int kLanes = 8;       // of a row
inline constexpr int kSweepRows = 16;  // of a block of threads
inline constexpr int kSweepThreads = kSweepRows * kLanes;
inline constexpr int kStrip = 8;  // columns whose changes are applied to the rest at once
inline constexpr int kCols = static_cast<int>(kBlockCols);
// Values of a row in shared memory: the block's columns and those behind it that its n:m cells reach into.
// The four rows of a warp begin eight banks apart.
inline constexpr int kRowValues = kCols + 8;

// ---- Reductions over the lanes of a row, in all of them.

__device__ inline float RowMin(float value) {
  for (int lane = kLanes / 2; lane > 0; lane /= 2)
    value = fminf(value, __shfl_xor_sync(kAllLanes, value, lane));
  return value;
}
__device__ inline float RowMax(float value) { return -RowMin(-value); }
__device__ inline float RowSum(float value) {
  for (int lane = kLanes / 2; lane > 0; lane /= 2)
    value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, lane));
  return value;
}

// The least key, of equal ones the one with the lowest index.
struct Ranked {
  float key;
  int index;
  __device__ bool Before(const Ranked& other) const {
    return key < other.key || (key == other.key && index < other.index);
  }
};
__device__ inline Ranked RowFirst(Ranked mine) {
  for (int lane = kLanes / 2; lane > 0; lane /= 2) {
    const Ranked other{__shfl_xor_sync(kAllLanes, mine.key, lane),
                       __shfl_xor_sync(kAllLanes, mine.index, lane)};
    if (other.Before(mine)) mine = other;
  }
  return mine;
}

// ---- Grids (ops/grid/grid.h).

struct RowGrid {
  int scale = 1;  // code
  int zero = 0;
};

__device__ inline float ScaleOf(int code) {
  return code < 16 ? static_cast<float>(code) * 0x1p-18f
                   : __uint_as_float((static_cast<uint32_t>(code) << 19) + (112u << 23));
}

__device__ inline int ScaleCodeOf(float value) {
  if (!(value >= 0x1p-14f)) return static_cast<int>(fmaxf(1.0f, rintf(__fmul_rn(value, 0x1p18f))));
  const uint32_t bits = __float_as_uint(value), odd = (bits >> 19) & 1u;
  return static_cast<int>(min(((bits + 0x3FFFFu + odd) >> 19) - (112u << 4), 255u));
}

__device__ inline int LargestCode(int bits) { return (1 << bits) - 1; }

__device__ inline RowGrid GridAt(int scale, float zero, int bits) {
  return {scale, static_cast<int>(fminf(fmaxf(zero, 0.0f), static_cast<float>(LargestCode(bits))))};
}

__device__ inline RowGrid GridOfRange(float low, float high, int bits) {
  const int scale = ScaleCodeOf(__fdiv_rn(__fsub_rn(high, low), static_cast<float>(LargestCode(bits))));
  return GridAt(scale, rintf(__fdiv_rn(-low, ScaleOf(scale))), bits);
}

// The grid of the search's step over a range that is cut (ShrunkenShare).
__device__ inline RowGrid ShrunkenGrid(float low, float high, int step, int bits) {
  const float shortest = bits <= 2 ? 0.3f : bits == 3 ? 0.4f : bits == 4 ? 0.55f : 0.75f;
  const float cut = __fdiv_rn(__fmul_rn(__fsub_rn(1.0f, shortest), static_cast<float>(step)),
                              static_cast<float>(kGridShrinks - 1));
  const float share = __fsub_rn(1.0f, cut);
  return GridOfRange(__fmul_rn(low, share), __fmul_rn(high, share), bits);
}

__device__ inline RowGrid Moved(const RowGrid& grid, int move, int bits) {
  const float zero = static_cast<float>(grid.zero);
  if (move == 0) return GridAt(min(grid.scale + 1, 255), zero, bits);
  if (move == 1) return GridAt(max(grid.scale - 1, 1), zero, bits);
  return GridAt(grid.scale, move == 2 ? zero + 1.0f : zero - 1.0f, bits);
}

// ---- Quantisers: the representable value nearest to w, and its code.

struct OfNothing {
  __device__ float Value(float, bool, uint32_t* code) const {
    *code = 0;
    return 0;
  }
};

struct OfHalf {
  __device__ float Value(float w, bool kept, uint32_t* code) const {
    constexpr float kLargest = 65504.0f;
    const __half half = __float2half_rn(kept ? fminf(fmaxf(-kLargest, w), kLargest) : 0.0f);
    *code = __half_as_ushort(half);
    return __half2float(half);
  }
};

struct OfGrid {
  float scale, reciprocal, zero, low, high;  // low, high: code - zero at most

  __device__ OfGrid(const RowGrid& grid, int bits) {
    scale = ScaleOf(grid.scale);
    reciprocal = __frcp_rn(scale);
    zero = static_cast<float>(grid.zero);
    low = -zero;
    high = static_cast<float>(LargestCode(bits)) - zero;
  }

  // code - zero of the grid point nearest to w.
  __device__ float Steps(float w) const {
    // w / scale, correctly rounded: one correction is enough, as scales have five bits. Bounds are whole, so
    // that it may be bounded before it is rounded; then 1.5 x 2^23 rounds it to the nearest, ties to even.
    constexpr float kRound = 12582912.0f;
    const float near = __fmul_rn(w, reciprocal);
    const float quotient = __fmaf_rn(__fmaf_rn(-near, scale, w), reciprocal, near);
    return __fsub_rn(__fadd_rn(fminf(fmaxf(quotient, low), high), kRound), kRound);
  }
  __device__ float Value(float w, bool kept, uint32_t* code) const {
    const float steps = Steps(w);
    *code = kept ? static_cast<uint32_t>(steps + zero) : 0u;
    return kept ? __fmul_rn(steps, scale) : 0.0f;
  }
};

// f(quantiser) with the one for these bits.
template <typename F>
__device__ void WithQuantiser(int bits, const RowGrid& grid, const F& f) {
  if (bits == 0) {
    f(OfNothing());
  } else if (bits == 16) {
    f(OfHalf());
  } else {
    f(OfGrid(grid, bits));
  }
}

// ---- The recursion.

// The upper triangle of a block's factor, [kCols, kRowValues], in shared memory: four rows begin at the same
// column, so that runs of four columns stay together.
struct Triangle {
  static constexpr int kValues = kCols * kRowValues - kCols * (kCols - 4) / 2;
  float* data;

  // So that row(j)[k] is column k >= j - j % 4.
  __device__ float* row(int j) const {
    const int band = j / 4;
    return data + 4 * kRowValues * band - 8 * band * (band - 1) + j % 4 * (kRowValues - 4 * band) - 4 * band;
  }
};

// Reads columns [start, start + end) of `cols` rows of a matrix from row `start` on; zeros elsewhere. All
// threads of the block; a barrier must follow.
__device__ inline void LoadTriangle(const View<const float>& from, size_t start, int cols, int end,
                                    const Triangle& to) {
  const int lane = threadIdx.x % kWarp;
  for (int j = threadIdx.x / kWarp; j < cols; j += kSweepThreads / kWarp) {
    const float* in = from.row(start + j) + start;
    for (int k = j / 4 * 4 + lane; k < kRowValues; k += kWarp)
      to.row(j)[k] = k >= j && k < end ? in[k] : 0.0f;
  }
}

// Columns [start, start + cols) of the block's rows: to [kSweepRows, kRowValues] by row, zeros where there is
// no row. from: [.., rows]. All threads; a barrier must follow.
template <typename T>
__device__ void LoadColumns(const T* from, size_t rows, size_t start, int cols, T* to) {
  const size_t first = blockIdx.x * size_t{kSweepRows};
  for (int i = threadIdx.x; i < cols * kSweepRows; i += kSweepThreads) {
    const int j = i / kSweepRows, r = i % kSweepRows;
    to[r * kRowValues + j] = first + r < rows ? from[(start + j) * rows + first + r] : T{};
  }
}
// The way back; a barrier must stand before it.
template <typename T>
__device__ void StoreColumns(const T* from, size_t rows, size_t start, int cols, T* to) {
  const size_t first = blockIdx.x * size_t{kSweepRows};
  for (int i = threadIdx.x; i < cols * kSweepRows; i += kSweepThreads) {
    const int j = i / kSweepRows, r = i % kSweepRows;
    if (first + r < rows) to[(start + j) * rows + first + r] = from[r * kRowValues + j];
  }
}

// Bit i: whether the row keeps its column `first` + i, i < kStrip. keep: of the row, or null (all).
__device__ inline uint32_t KeptOf(const uint8_t* keep, int first, int count, int lane) {
  if (keep == nullptr) return ~0u;
  const uint32_t kept = __ballot_sync(kAllLanes, lane < count && keep[first + lane] != 0);
  return kept >> (threadIdx.x % kWarp / kLanes * kLanes);
}

// Columns [first, first + count) of a row, count <= kStrip: step(i, target_j) fixes column j = first + i and
// returns its change; target_k -= change_j factor_jk for the columns behind it, to `end`. What target holds
// of columns before first + count is lost. All lanes of a warp call it, its rows with the same columns.
template <typename Step>
__device__ void SweepStrip(const Triangle& factor, int first, int count, int end, int lane, float* target,
                           const Step& step) {
  const int after = first + count;
  float own = target[first + lane];
  float change[kStrip];
#pragma unroll
  for (int i = 0; i < kStrip; ++i) {
    change[i] = 0;
    if (i >= count) continue;
    change[i] = step(i, __shfl_sync(kAllLanes, own, i, kLanes));
    if (lane > i) own = __fmaf_rn(-change[i], factor.row(first + i)[first + lane], own);
  }
  for (int k = after / 4 * 4 + 4 * lane; k < end; k += 4 * kLanes) {
    // Two sums, as the processor has them.
    float4 a = *reinterpret_cast<const float4*>(target + k), b = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < kStrip; ++i) {
      if (i >= count) continue;
      const float4 f = *reinterpret_cast<const float4*>(factor.row(first + i) + k);
      float4& sum = i % 2 == 0 ? a : b;
      sum.x = __fmaf_rn(-change[i], f.x, sum.x);
      sum.y = __fmaf_rn(-change[i], f.y, sum.y);
      sum.z = __fmaf_rn(-change[i], f.z, sum.z);
      sum.w = __fmaf_rn(-change[i], f.w, sum.w);
    }
    if (count > 1) {
      a = {__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w)};
    }
    *reinterpret_cast<float4*>(target + k) = a;
  }
  __syncwarp();
}

}  // namespace mica::cuda
