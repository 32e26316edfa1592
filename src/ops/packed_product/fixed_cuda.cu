// Codes of coding `fixed`. Stored columns are put into chunks of 32 slots, each of one scale group, whose
// last chunk may have empty slots. A warp takes a row, a lane a chunk of it at a time; x is in the order of
// the slots.
//
// A row without a mask is read from where it lies, in planes of bits; one with a mask is copied into shared
// memory while the one before it is multiplied. There, the codes of the kept weights follow one another; four
// columns at a time they are put where they belong, and the zero of the group, which adds nothing, where
// there are none.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "ops/codes/decode_codes_cuda.h"
#include "ops/codes/largest_shared.h"
#include "ops/cuda_ops.h"
#include "ops/packed_product/forms_cuda.h"

namespace mica::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMostRuns = 6;  // of widths above 0
constexpr uint32_t kNoColumn = ~0u;
// Codes are read a word ahead.
constexpr uint32_t kAfter = 8;

// Chunks of one width.
struct Run {
  uint32_t begin, end;
  uint32_t bits;
  uint32_t offset;  // of its planes in a row, without a mask
};

// A row: scale and zero of each group, two bytes; with a mask a word a chunk and the codes of the kept
// weights as a stream of bits, else planes a run (halves in their order for width 16).
struct Matrix {
  const uint8_t* rows_data;
  const uint32_t* row_begin;  // [rows + 1] in 16 bytes, with a mask
  const uint16_t* group_of;   // [chunks]
  uint64_t row_bytes;         // without one
  uint32_t rows, cols, chunks, groups;
  uint32_t codes_offset, mask_offset;
  uint32_t masked, run_count;
  Run runs[kMostRuns];
  uint32_t half_begin;  // first chunk of width 16
};

struct Product {
  Matrix matrix;
  RoundedInputs in;
  const float* bias;
  float* y;
  uint64_t y_stride;
  uint32_t first;  // block without a mask, row with one
  float added;
};
struct ProductLaunch {
  Product products[kMostProducts];
  uint32_t count, tokens, rows, stage_bytes;
};

// As in scale_code.h.
__device__ __forceinline__ float ScaleOf(uint32_t code) {
  return code < 16 ? static_cast<float>(code) * 0x1p-18f
                   : __int_as_float(static_cast<int>((code << 19) + (112u << 23)));
}

__device__ __forceinline__ const Run& RunOf(const Matrix& matrix, uint32_t k) {
  uint32_t i = 0;
  while (i + 1 < matrix.run_count && k >= matrix.runs[i].end) ++i;
  return matrix.runs[i];
}

// body(std::integral_constant<int, bits>) for a width up to 8.
template <typename Body>
__device__ __forceinline__ void WithWidth(uint32_t bits, const Body& body) {
  switch (bits) {
    case 2:
      return body(std::integral_constant<int, 2>());
    case 3:
      return body(std::integral_constant<int, 3>());
    case 4:
      return body(std::integral_constant<int, 4>());
    case 6:
      return body(std::integral_constant<int, 6>());
    case 8:
      return body(std::integral_constant<int, 8>());
    default:
      return;
  }
}

// Four codes from the lowest bits, a byte each.
template <int kBits>
__device__ __forceinline__ uint32_t Spread(uint32_t v) {
  if constexpr (kBits == 8) {
    return v;
  } else {
    constexpr uint32_t kTwo = (1u << 2 * kBits) - 1, kOne = (1u << kBits) - 1;
    const uint32_t halves = (v & kTwo) | (v << (16 - 2 * kBits) & kTwo << 16);
    return (halves & kOne * 0x10001u) | (halves << (8 - kBits) & kOne * 0x1000100u);
  }
}

// For four bits of a mask: where the byte of each column comes from, the code of a kept one or (4) what
// pruned ones have, a nibble each; from bit 16 on, how many are kept.
__device__ uint32_t Selection(uint32_t kept) {
  uint32_t selection = 0, count = 0;
  for (uint32_t j = 0; j < 4; ++j) {
    const bool is_kept = (kept >> j & 1) != 0;
    selection |= (is_kept ? count : 4u) << 4 * j;
    if (is_kept) ++count;
  }
  return selection | count << 16;
}

// The words of a chunk, pruned slots with `zero`. codes: words of the row's stream.
template <int kBits>
__device__ __forceinline__ void Place(uint32_t kept, const uint32_t* codes, uint32_t bit, uint32_t zero,
                                      const uint32_t* selections, uint32_t (&words)[8]) {
  const uint32_t* next = codes + bit / 32;
  const uint32_t zeros = zero * 0x01010101u;
  uint32_t low = next[0], high = next[1], shift = bit % 32;
  next += 2;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t selection = selections[kept >> 4 * i & 15];
    words[i] = __byte_perm(Spread<kBits>(__funnelshift_r(low, high, shift)), zeros, selection);
    shift += (selection >> 16) * kBits;
    if (i < 7 && shift >= 32) {
      shift -= 32;
      low = high;
      high = *next++;
    }
  }
}

// Adds what 32 columns of width up to 8 give a row.
template <int kTokens>
__device__ __forceinline__ void AddChunk(const RoundedInputs& in, uint32_t tokens, uint32_t k,
                                         const uint32_t (&words)[8], uint32_t meta, float (&sums)[kTokens]) {
  const float scale = ScaleOf(meta & 0xFF);
  const int zero = static_cast<int>(meta >> 8);
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const uint32_t token = min(static_cast<uint32_t>(t), tokens - 1);
    const uint4* const values = in.values + (size_t{token} * in.steps + k / 32) * 64 + k % 32;
    const uint4 u = values[0], v = values[32];
    const int2 head = in.heads[size_t{token} * in.chunks + k];
    int dot = -zero * head.y;
    dot = DotUnsigned(words[0], u.x, dot);
    dot = DotUnsigned(words[1], u.y, dot);
    dot = DotUnsigned(words[2], u.z, dot);
    dot = DotUnsigned(words[3], u.w, dot);
    dot = DotUnsigned(words[4], v.x, dot);
    dot = DotUnsigned(words[5], v.y, dot);
    dot = DotUnsigned(words[6], v.z, dot);
    dot = DotUnsigned(words[7], v.w, dot);
    sums[t] = fmaf(__fmul_rn(scale, __int_as_float(head.x)), static_cast<float>(dot), sums[t]);
  }
}

// The values of a chunk of width 16, pruned ones 0: visit(c, value) for c from 0 to 31.
template <typename Visit>
__device__ __forceinline__ void ForHalves(const Matrix& matrix, const Run& run, const uint8_t* row,
                                          uint32_t k, uint32_t kept, uint32_t bit, const Visit& visit) {
  if (matrix.masked == 0) {
    const uint4* const halves =
        reinterpret_cast<const uint4*>(row + run.offset) + size_t{4} * (k - run.begin);
    for (int part = 0; part < 4; ++part) {
      const uint4 bits = halves[part];
      const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
      for (int i = 0; i < 8; ++i)
        visit(8 * part + i, ToFloat(__ushort_as_half(static_cast<uint16_t>(words[i / 2] >> 16 * (i % 2)))));
    }
    return;
  }
  const uint32_t* const codes = reinterpret_cast<const uint32_t*>(row + matrix.codes_offset);
  for (int c = 0; c < static_cast<int>(kChunk); ++c) {
    float value = 0;
    if (kept >> c & 1) {
      const uint32_t* const at = codes + bit / 32;
      value = ToFloat(__ushort_as_half(static_cast<uint16_t>(__funnelshift_r(at[0], at[1], bit % 32))));
      bit += 16;
    }
    visit(c, value);
  }
}

template <int kTokens>
__device__ __forceinline__ void AddHalves(const Matrix& matrix, const Run& run, const RoundedInputs& in,
                                          uint32_t tokens, const uint8_t* row, uint32_t k, uint32_t kept,
                                          uint32_t bit, float (&sums)[kTokens]) {
  ForHalves(matrix, run, row, k, kept, bit, [&](int c, float value) {
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const uint32_t token = min(static_cast<uint32_t>(t), tokens - 1);
      sums[t] = fmaf(value, in.apart[size_t{token} * in.apart_count + (k - matrix.half_begin) * kChunk + c],
                     sums[t]);
    }
  });
}

template <int kTokens>
__device__ __forceinline__ void Finish(const Product& product, uint32_t tokens, uint32_t row, bool mine,
                                       const float (&sums)[kTokens]) {
  const uint32_t lane = threadIdx.x % kWarp;
#pragma unroll
  for (int t = 0; t < kTokens; t += 2) {
    const float sum = __fadd_rn(WarpSum(sums[t]), WarpSum(sums[t + 1]));
    if (mine && t < tokens && lane == t)
      PutProduct(sum, product.bias, row, product.added, product.y + t / 2 * product.y_stride + row);
  }
}

// Without a mask: a warp kRows rows.
constexpr int kRows = 2;
template <int kTokens>
__global__ void __launch_bounds__(kThreads) MultiplyWhole(const __grid_constant__ ProductLaunch launch) {
  LetNextBegin();
  constexpr int kAhead = 2;
  uint32_t p = 0;
  while (p + 1 < launch.count && blockIdx.x >= launch.products[p + 1].first) ++p;
  const Product& product = launch.products[p];
  const Matrix& matrix = product.matrix;
  const RoundedInputs& in = product.in;
  const uint32_t first_row = ((blockIdx.x - product.first) * kWarps + threadIdx.x / kWarp) * kRows,
                 lane = threadIdx.x % kWarp;
  if (first_row >= matrix.rows) return;
  const uint8_t* rows[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    rows[r] = matrix.rows_data + min(first_row + r, matrix.rows - 1) * matrix.row_bytes;
  float sums[kRows][kTokens] = {};
  bool waited = false;
  for (uint32_t step = 0; step < in.steps; step += kAhead) {
    PlaneBits bits[kAhead][kRows];
    uint32_t metas[kAhead][kRows];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const uint32_t k = (step + a) * kWarp + lane;
      if (k >= matrix.chunks) continue;
      const Run& run = RunOf(matrix, k);
      const uint32_t group = matrix.group_of[k];
#pragma unroll
      for (int r = 0; r < kRows; ++r) metas[a][r] = reinterpret_cast<const uint16_t*>(rows[r])[group];
      WithWidth(run.bits, [&](auto width) {
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          bits[a][r] =
              LoadPlanes<decltype(width)::value>(rows[r] + run.offset, run.end - run.begin, k - run.begin);
      });
    }
    if (!waited) {
      WaitForWorkBefore();  // the inputs
      waited = true;
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const uint32_t k = (step + a) * kWarp + lane;
      if (k >= matrix.chunks) continue;
      const Run& run = RunOf(matrix, k);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (run.bits == 16) {
          AddHalves(matrix, run, in, launch.tokens, rows[r], k, 0, 0, sums[r]);
          continue;
        }
        uint32_t words[8];
        WithWidth(run.bits, [&](auto width) { Unpack<decltype(width)::value>(bits[a][r], words); });
        AddChunk(in, launch.tokens, k, words, metas[a][r], sums[r]);
      }
    }
  }
  if (!waited) WaitForWorkBefore();  // what y was before
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    Finish(product, launch.tokens, first_row + r, first_row + r < matrix.rows, sums[r]);
}

// Where the codes of each lane's chunk begin, of 32 chunks whose first code is at bit `before`, which goes on
// behind them.
__device__ __forceinline__ uint32_t BitOf(uint32_t count, uint32_t& before) {
  uint32_t sum = count;
#pragma unroll
  for (int d = 1; d < kWarp; d *= 2) {
    const uint32_t of_others = __shfl_up_sync(kAllLanes, sum, d);
    if (threadIdx.x % kWarp >= d) sum += of_others;
  }
  const uint32_t bit = before + sum - count;
  before += __shfl_sync(kAllLanes, sum, kWarp - 1);
  return bit;
}

__device__ __forceinline__ void FillSelections(uint32_t* selections) {
  if (threadIdx.x < 16) selections[threadIdx.x] = Selection(threadIdx.x);
}

// A row with a mask.
template <int kTokens>
__device__ __forceinline__ void MultiplyMaskedRow(const Product& product, uint32_t tokens, uint32_t r,
                                                  const uint8_t* row, const uint32_t* selections) {
  const Matrix& matrix = product.matrix;
  const RoundedInputs& in = product.in;
  const uint32_t lane = threadIdx.x % kWarp;
  const uint32_t* const mask = reinterpret_cast<const uint32_t*>(row + matrix.mask_offset);
  const uint32_t* const codes = reinterpret_cast<const uint32_t*>(row + matrix.codes_offset);
  float sums[kTokens] = {};
  uint32_t before = 0;
  for (uint32_t step = 0; step < in.steps; ++step) {
    const uint32_t k = step * kWarp + lane;
    const bool active = k < matrix.chunks;
    const Run& run = RunOf(matrix, active ? k : matrix.chunks - 1);
    const uint32_t kept = active ? mask[k] : 0;
    const uint32_t bit = BitOf(__popc(kept) * run.bits, before);
    if (!active) continue;
    if (run.bits == 16) {
      AddHalves(matrix, run, in, tokens, row, k, kept, bit, sums);
      continue;
    }
    const uint32_t meta = reinterpret_cast<const uint16_t*>(row)[matrix.group_of[k]];
    uint32_t words[8];
    WithWidth(run.bits, [&](auto width) {
      Place<decltype(width)::value>(kept, codes, bit, meta >> 8, selections, words);
    });
    AddChunk(in, tokens, k, words, meta, sums);
  }
  Finish(product, tokens, r, true, sums);
}

__device__ __forceinline__ void CopyAside(void* to, const void* from) {
  const uint32_t shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
}

// With a mask. kStaged: rows are copied into shared memory, two a warp; launch.stage_bytes each.
template <int kTokens, bool kStaged>
__global__ void __launch_bounds__(kThreads) MultiplyMasked(const __grid_constant__ ProductLaunch launch) {
  extern __shared__ __align__(16) uint8_t stages[];
  __shared__ uint32_t selections[16];
  LetNextBegin();
  FillSelections(selections);
  __syncthreads();
  const uint32_t lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const uint32_t warps = gridDim.x * kWarps;
  const auto product_of = [&](uint32_t r) -> const Product& {
    uint32_t p = 0;
    while (p + 1 < launch.count && r >= launch.products[p + 1].first) ++p;
    return launch.products[p];
  };
  uint8_t* const stage = stages + size_t{warp} * 2 * launch.stage_bytes;
  const auto fetch = [&](uint32_t r, uint32_t to) {
    if (r < launch.rows) {
      const Product& product = product_of(r);
      const uint32_t row = r - product.first;
      const uint32_t begin = product.matrix.row_begin[row], end = product.matrix.row_begin[row + 1];
      const uint8_t* const from = product.matrix.rows_data + size_t{16} * begin;
      for (uint32_t i = lane; i < end - begin; i += kWarp)
        CopyAside(stage + to * launch.stage_bytes + 16 * i, from + 16 * i);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  // Blocks next to one another have the rows that are left over.
  uint32_t r = warp * gridDim.x + blockIdx.x, at = 0;
  if constexpr (kStaged) fetch(r, 0);
  bool waited = false;
  for (; r < launch.rows; r += warps, at ^= 1) {
    const Product& product = product_of(r);
    const uint32_t row = r - product.first;
    if constexpr (kStaged) {
      fetch(r + warps, at ^ 1);
      asm volatile("cp.async.wait_group 1;" ::: "memory");
      __syncwarp();
    }
    if (!waited) {
      WaitForWorkBefore();  // the inputs
      waited = true;
    }
    const uint8_t* const data = kStaged
                                    ? stage + at * launch.stage_bytes
                                    : product.matrix.rows_data + size_t{16} * product.matrix.row_begin[row];
    MultiplyMaskedRow<kTokens>(product, launch.tokens, row, data, selections);
    __syncwarp();
  }
}

// A warp a row: row ids[i] or first + i, in the order of slots (T BF16) or of columns (T FP32).
template <typename T, bool kById>
__global__ void __launch_bounds__(kThreads)
    DecodeRows(const __grid_constant__ Matrix matrix, const float* factors, const uint32_t* columns,
               const __grid_constant__ RowIds ids, uint32_t first, View<T> out) {
  __shared__ uint32_t selections[16];
  FillSelections(selections);
  __syncthreads();
  const uint32_t i = blockIdx.x * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (i >= out.rows) return;
  const uint32_t r = kById ? static_cast<uint32_t>(ids.ids[i]) : first + i;
  const uint8_t* const row =
      matrix.rows_data + (matrix.masked != 0 ? size_t{16} * matrix.row_begin[r] : r * matrix.row_bytes);
  T* const target = out.row(i);
  if constexpr (kById) {
    for (uint32_t c = lane; c < out.cols; c += kWarp) target[c] = FromFloat<T>(0.0f);  // columns of width 0
    __syncwarp();
  }
  const auto put = [&](uint32_t k, int c, float weight) {
    const uint32_t slot = k * kChunk + c, column = columns[slot];
    const T value = FromFloat<T>(__fmul_rn(weight, factors[slot]));
    if constexpr (kById) {
      if (column != kNoColumn) target[column] = value;
    } else {
      target[slot] = value;
    }
  };
  uint32_t before = 0;
  for (uint32_t begin = 0; begin < matrix.chunks; begin += kWarp) {
    const uint32_t k = begin + lane;
    const bool active = k < matrix.chunks;
    const Run& run = RunOf(matrix, active ? k : matrix.chunks - 1);
    uint32_t kept = 0, bit = 0;
    if (matrix.masked != 0) {
      if (active) kept = reinterpret_cast<const uint32_t*>(row + matrix.mask_offset)[k];
      bit = BitOf(__popc(kept) * run.bits, before);
    }
    if (!active) continue;
    if (run.bits == 16) {
      ForHalves(matrix, run, row, k, kept, bit, [&](int c, float value) { put(k, c, value); });
      continue;
    }
    const uint32_t meta = reinterpret_cast<const uint16_t*>(row)[matrix.group_of[k]];
    const float scale = ScaleOf(meta & 0xFF);
    uint32_t words[8];
    WithWidth(run.bits, [&](auto width) {
      constexpr int kBits = decltype(width)::value;
      if (matrix.masked != 0) {
        Place<kBits>(kept, reinterpret_cast<const uint32_t*>(row + matrix.codes_offset), bit, meta >> 8,
                     selections, words);
      } else {
        Unpack<kBits>(LoadPlanes<kBits>(row + run.offset, run.end - run.begin, k - run.begin), words);
      }
    });
#pragma unroll
    for (int c = 0; c < static_cast<int>(kChunk); ++c) {
      const int code = static_cast<int>(words[c / 4] >> 8 * (c % 4) & 0xFF);
      put(k, c, static_cast<float>(code - static_cast<int>(meta >> 8)) * scale);
    }
  }
}

// out[t, slot] = x[t, column of the slot] in BF16, 0 where there is none.
__global__ void __launch_bounds__(kThreads)
    OrderInputs(View<const float> x, const uint32_t* columns, View<__nv_bfloat16> out) {
  const size_t slot = size_t{blockIdx.x} * kThreads + threadIdx.x;
  if (slot >= out.cols) return;
  const uint32_t column = columns[slot];
  for (size_t t = blockIdx.y; t < x.rows; t += gridDim.y)
    out.row(t)[slot] = __float2bfloat16_rn(column == kNoColumn ? 0.0f : x.row(t)[column]);
}

// -- Making them.

struct Packing {
  const uint32_t* first_col;     // [chunks] stored column of its first slot
  const uint32_t* slots;         // [chunks] that are not empty
  const uint8_t* scales;         // [scale groups, rows] as stored
  const int32_t* scale_row;      // [groups]
  const uint8_t* zeros;          // [rows, stored groups]
  const uint32_t* stored_group;  // [groups]
  uint32_t stored_groups;
};

// A warp a row. kWrite: writes it; else sizes[row] = its 16 bytes, with a mask.
template <bool kWrite>
__global__ void __launch_bounds__(kThreads)
    PackRows(const __grid_constant__ Matrix matrix, const __grid_constant__ Packing packing,
             View<const uint16_t> codes, uint8_t* rows_data, uint32_t* sizes) {
  const uint32_t r = blockIdx.x * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (r >= matrix.rows) return;
  const uint16_t* const of_row = codes.row(r);
  uint8_t* const row =
      kWrite ? rows_data + (matrix.masked != 0 ? size_t{16} * sizes[r] : r * matrix.row_bytes) : nullptr;
  if constexpr (kWrite) {
    for (uint32_t g = lane; g < matrix.groups; g += kWarp) {
      const int32_t scale_row = packing.scale_row[g];
      const uint32_t scale =
          scale_row < 0 ? 0 : packing.scales[size_t{static_cast<uint32_t>(scale_row)} * matrix.rows + r];
      const uint32_t zero =
          scale_row < 0 ? 0 : packing.zeros[size_t{r} * packing.stored_groups + packing.stored_group[g]];
      reinterpret_cast<uint16_t*>(row)[g] = static_cast<uint16_t>(scale | zero << 8);
    }
  }
  uint32_t before = 0;
  for (uint32_t begin = 0; begin < matrix.chunks; begin += kWarp) {
    const uint32_t k = begin + lane;
    const bool active = k < matrix.chunks;
    const Run& run = RunOf(matrix, active ? k : matrix.chunks - 1);
    const uint32_t slots = active ? packing.slots[k] : 0, col = active ? packing.first_col[k] : 0;
    if (matrix.masked != 0) {
      uint32_t kept = 0;
      for (uint32_t c = 0; c < slots; ++c)
        kept |= static_cast<uint32_t>(of_row[col + c] != kNoFixedCode) << c;
      uint32_t bit = BitOf(__popc(kept) * run.bits, before);
      if constexpr (kWrite) {
        if (!active) continue;
        reinterpret_cast<uint32_t*>(row + matrix.mask_offset)[k] = kept;
        uint32_t* const stream = reinterpret_cast<uint32_t*>(row + matrix.codes_offset);
        for (uint32_t c = 0; c < slots; ++c) {
          if ((kept >> c & 1) == 0) continue;
          const uint64_t code = uint64_t{of_row[col + c]} << bit % 32;
          atomicOr(stream + bit / 32, static_cast<uint32_t>(code));
          if (code >> 32 != 0) atomicOr(stream + bit / 32 + 1, static_cast<uint32_t>(code >> 32));
          bit += run.bits;
        }
      }
      continue;
    }
    if (!kWrite || !active) continue;
    if (run.bits == 16) {
      uint16_t* const halves =
          reinterpret_cast<uint16_t*>(row + run.offset) + size_t{kChunk} * (k - run.begin);
      for (uint32_t c = 0; c < kChunk; ++c) halves[c] = c < slots ? of_row[col + c] : 0;
      continue;
    }
    uint32_t words[8] = {};
#pragma unroll
    for (uint32_t c = 0; c < kChunk; ++c) {
      if (c < slots) words[c / 4] |= uint32_t{of_row[col + c]} << 8 * (c % 4);
    }
    WithWidth(run.bits, [&](auto width) {
      StorePlanes<decltype(width)::value>(words, row + run.offset, run.end - run.begin, k - run.begin);
    });
  }
  if (!kWrite && lane == 0) sizes[r] = (matrix.codes_offset + (before + 31) / 32 * 4 + kAfter + 15) / 16;
}

template <typename T>
Array ToDevice(Device device, std::span<const T> values) {
  Array there(1, std::max<size_t>(values.size_bytes(), 16), DType::kU8, device);
  if (!values.empty())
    CopyBytes(device, there.view().data, values.size_bytes(), Device::Cpu(), values.data(),
              values.size_bytes(), values.size_bytes(), 1);
  return there;
}
template <typename T>
T* At(const Array& array) {
  return reinterpret_cast<T*>(const_cast<std::byte*>(array.view().data));
}

class Fixed : public CudaForm {
 public:
  Fixed(const FixedParts& parts, Device device) : device_(device) {
    matrix_.rows = static_cast<uint32_t>(parts.rows);
    matrix_.cols = static_cast<uint32_t>(parts.cols);
    matrix_.masked = parts.mask != MaskKind::kNone ? 1 : 0;
    const bool masked = matrix_.masked != 0;

    // Chunks, runs and slots.
    std::vector<uint32_t> first_col, slots, stored_group, group_begin{0}, columns;
    std::vector<uint16_t> group_of;
    std::vector<int32_t> scale_row;
    std::vector<float> factors;
    std::vector<uint32_t> apart;
    std::vector<float> apart_factors;
    for (size_t g = 0; g < parts.groups.size(); ++g) {
      const FixedGroup& group = parts.groups[g];
      if (group.bits == 0) continue;
      if (matrix_.run_count == 0 || matrix_.runs[matrix_.run_count - 1].bits != group.bits) {
        MICA_CHECK(matrix_.run_count < kMostRuns);
        matrix_.runs[matrix_.run_count++] = {static_cast<uint32_t>(first_col.size()), 0, group.bits, 0};
        if (group.bits == 16) matrix_.half_begin = static_cast<uint32_t>(first_col.size());
      }
      for (uint32_t begin = 0; begin < group.count; begin += kChunk) {
        const uint32_t count = std::min(kChunk, group.count - begin);
        first_col.push_back(group.start + begin);
        slots.push_back(count);
        group_of.push_back(static_cast<uint16_t>(scale_row.size()));
        for (uint32_t c = 0; c < kChunk; ++c) {
          const size_t p = group.start + begin + c;
          const uint32_t column = c >= count              ? kNoColumn
                                  : parts.columns.empty() ? static_cast<uint32_t>(p)
                                                          : parts.columns[p];
          const int exponent = c >= count || parts.exponents.empty() ? 0 : parts.exponents[p];
          columns.push_back(column);
          factors.push_back(c >= count ? 0.0f : std::ldexp(1.0f, parts.exponent + exponent));
          if (group.bits != 16) continue;
          apart.push_back(column);
          apart_factors.push_back(factors.back());
        }
      }
      matrix_.runs[matrix_.run_count - 1].end = static_cast<uint32_t>(first_col.size());
      scale_row.push_back(group.scale_row);
      stored_group.push_back(static_cast<uint32_t>(g));
      group_begin.push_back(static_cast<uint32_t>(first_col.size()));
    }
    matrix_.chunks = static_cast<uint32_t>(first_col.size());
    matrix_.groups = static_cast<uint32_t>(scale_row.size());
    apart_count_ = static_cast<uint32_t>(apart.size());
    columns_ = ToDevice<uint32_t>(device_, columns);
    factors_ = ToDevice<float>(device_, factors);
    apart_ = ToDevice<uint32_t>(device_, apart);
    apart_factors_ = ToDevice<float>(device_, apart_factors);
    group_of_ = ToDevice<uint16_t>(device_, group_of);
    group_begin_ = ToDevice<uint32_t>(device_, group_begin);
    matrix_.group_of = At<const uint16_t>(group_of_);

    // Rows.
    const uint32_t meta_bytes = matrix_.groups * sizeof(uint16_t);
    matrix_.mask_offset = (meta_bytes + 3) / 4 * 4;
    matrix_.codes_offset = matrix_.mask_offset + (masked ? 4 * matrix_.chunks : 0);
    uint32_t offset = (meta_bytes + 15) / 16 * 16;
    for (uint32_t i = 0; i < matrix_.run_count; ++i) {
      Run& run = matrix_.runs[i];
      run.offset = offset;
      offset += ((run.end - run.begin) * ChunkBytes(static_cast<int>(run.bits)) + 15) / 16 * 16;
    }
    matrix_.row_bytes = offset;

    Array codes(parts.rows, parts.cols, DType::kU16, device_),
        zeros(parts.rows, parts.groups.size(), DType::kU8, device_);
    DecodeCodes(parts, codes.view(), zeros.view());
    const Array first_col_there = ToDevice<uint32_t>(device_, first_col),
                slots_there = ToDevice<uint32_t>(device_, slots),
                scale_row_there = ToDevice<int32_t>(device_, scale_row),
                stored_group_there = ToDevice<uint32_t>(device_, stored_group),
                scales_there = ToDevice<std::byte>(device_, parts.scales);
    const Packing packing{At<const uint32_t>(first_col_there),
                          At<const uint32_t>(slots_there),
                          At<const uint8_t>(scales_there),
                          At<const int32_t>(scale_row_there),
                          At<const uint8_t>(zeros),
                          At<const uint32_t>(stored_group_there),
                          static_cast<uint32_t>(parts.groups.size())};
    const View<const uint16_t> of_codes{At<const uint16_t>(codes), codes.rows(), codes.cols(), codes.cols()};
    const unsigned blocks = Blocks(matrix_.rows, kWarps);
    size_t bytes = matrix_.rows * matrix_.row_bytes;
    if (masked) {
      std::vector<uint32_t> begin(matrix_.rows + 1, 0);
      row_begin_ = ToDevice<uint32_t>(device_, begin);
      Launch(device_, PackRows<false>, blocks, kThreads, 0, matrix_, packing, of_codes,
             static_cast<uint8_t*>(nullptr), At<uint32_t>(row_begin_));
      const size_t begin_bytes = matrix_.rows * sizeof(uint32_t);
      CopyBytes(Device::Cpu(), begin.data(), begin_bytes, device_, row_begin_.view().data, begin_bytes,
                begin_bytes, 1);
      stage_bytes_ = 16 * *std::max_element(begin.begin(), begin.end());
      bytes = size_t{16} * std::accumulate(begin.begin(), begin.end(), uint64_t{0});
      std::exclusive_scan(begin.begin(), begin.end(), begin.begin(), 0u);
      row_begin_ = ToDevice<uint32_t>(device_, begin);
      matrix_.row_begin = At<const uint32_t>(row_begin_);
    }
    rows_data_ = Array(1, bytes + 16, DType::kU8, device_);
    FillBytes(device_, rows_data_.view().data, 0, rows_data_.cols());
    matrix_.rows_data = At<const uint8_t>(rows_data_);
    Launch(device_, PackRows<true>, blocks, kThreads, 0, matrix_, packing, of_codes, At<uint8_t>(rows_data_),
           At<uint32_t>(row_begin_));
    bytes_ = rows_data_.cols() + row_begin_.cols() + columns_.cols() + factors_.cols() + apart_.cols() +
             apart_factors_.cols() + group_of_.cols() + group_begin_.cols();
    // Another thread may be the first to use them.
    Synchronize(device_);
  }

  const char* name() const override { return "fixed"; }
  size_t outputs() const override { return matrix_.rows; }
  size_t inputs() const override { return matrix_.cols; }
  Device device() const override { return device_; }
  size_t bytes() const override { return bytes_; }

  bool GoesWith(const CudaForm& other) const override {
    const auto* const fixed = dynamic_cast<const Fixed*>(&other);
    return fixed != nullptr && fixed->matrix_.masked == matrix_.masked;
  }

  size_t few_tokens() const override { return kFewDigits / 2; }
  void MultiplyFew(const ProductInputs& x, std::span<const FormProduct> products) const override {
    MultiplyDigits(*this, x, products);
  }

  void MultiplyMany(ConstTensor x, Tensor y) const override {
    const size_t slots = size_t{kChunk} * matrix_.chunks;
    if (slots == 0) return FillZero(y);
    void* const memory = ThreadMemory(device_, Use::kNarrowInputs, x.rows * slots * sizeof(BF16));
    const Tensor ordered(static_cast<std::byte*>(memory), x.rows, slots, slots, DType::kBF16, device_);
    Launch(device_, OrderInputs,
           dim3(Blocks(slots, kThreads), static_cast<unsigned>(std::min<size_t>(x.rows, 32768))), kThreads, 0,
           In<float>(x), At<const uint32_t>(columns_), Out<BF16>(ordered));
    MultiplyDecoded(ordered, matrix_.rows, DType::kBF16, y, [&](size_t first, Tensor rows) {
      Launch(device_, DecodeRows<__nv_bfloat16, false>, Blocks(rows.rows, kWarps), kThreads, 0, matrix_,
             At<const float>(factors_), At<const uint32_t>(columns_), RowIds{}, static_cast<uint32_t>(first),
             Out<BF16>(rows));
    });
  }

  void Rows(std::span<const int32_t> ids, Tensor out) const override {
    MICA_CHECK(out.rows == ids.size() && out.cols == matrix_.cols);
    ForIds(ids, matrix_.rows, [&](const RowIds& some, size_t first, size_t count) {
      Launch(device_, DecodeRows<float, true>, Blocks(count, kWarps), kThreads, 0, matrix_,
             At<const float>(factors_), At<const uint32_t>(columns_), some, 0u,
             Out<float>(out.Rows(first, count)));
    });
  }

 private:
  friend void MultiplyDigits<Fixed>(const Fixed&, const ProductInputs&, std::span<const FormProduct>);
  InputPlan Plan() const {
    InputPlan plan{};
    plan.factors = At<const float>(factors_);
    plan.columns = At<const uint32_t>(columns_);
    plan.block_begin = At<const uint32_t>(group_begin_);
    plan.cols = matrix_.cols;
    plan.chunks = matrix_.chunks;
    plan.blocks = matrix_.groups;
    plan.apart = At<const uint32_t>(apart_);
    plan.apart_factors = At<const float>(apart_factors_);
    plan.apart_count = apart_count_;
    return plan;
  }

  template <int kTokens>
  void Start(ConstTensor x, std::span<const FormProduct> products, const RoundedInputs* inputs) const {
    ProductLaunch launch{};
    launch.count = static_cast<uint32_t>(products.size());
    launch.tokens = static_cast<uint32_t>(2 * x.rows);
    unsigned first = 0;
    for (size_t i = 0; i < products.size(); ++i) {
      const Fixed& form = *static_cast<const Fixed*>(products[i].form);
      const View<float> y = Out<float>(products[i].y);
      const float* const bias = products[i].bias.empty() ? nullptr : In<float>(products[i].bias).data;
      launch.products[i] = {form.matrix_, inputs[i], bias, y.data, y.stride, first, products[i].added};
      launch.stage_bytes = std::max(launch.stage_bytes, form.stage_bytes_);
      first += matrix_.masked != 0 ? form.matrix_.rows : Blocks(form.matrix_.rows, kWarps * kRows);
    }
    if (matrix_.masked == 0)
      return LaunchBehind(x.device, MultiplyWhole<kTokens>, first, kThreads, 0, launch);
    launch.rows = first;
    const size_t shared = size_t{2} * kWarps * launch.stage_bytes,
                 largest = LargestSharedBytes(x.device) - 1024;
    const bool staged = shared <= largest;
    // As many blocks as find room.
    int multiprocessors = 0;
    CheckCuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, x.device.index()),
              "asking for its size");
    const unsigned room =
        staged ? static_cast<unsigned>(std::clamp<size_t>(largest / (shared + 1024), 1, 6)) : 6;
    const unsigned blocks =
        std::min(Blocks(launch.rows, kWarps), room * static_cast<unsigned>(multiprocessors));
    if (staged) {
      LaunchBehind(x.device, MultiplyMasked<kTokens, true>, blocks, kThreads, shared, launch);
    } else {
      LaunchBehind(x.device, MultiplyMasked<kTokens, false>, blocks, kThreads, 0, launch);
    }
  }

  Device device_;
  Matrix matrix_{};
  uint32_t apart_count_ = 0, stage_bytes_ = 0;
  Array rows_data_, row_begin_, columns_, factors_, apart_, apart_factors_, group_of_, group_begin_;
  size_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<const ResidentForm> FixedOnCuda(const FixedParts& parts, Device device) {
  return std::make_unique<Fixed>(parts, device);
}

}  // namespace mica::cuda
