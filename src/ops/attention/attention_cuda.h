// What the kernels of attention and of its gradient share; included by *_cuda.cu only.
#pragma once

#include <algorithm>
#include <cmath>

#include "ops/attention/attention.h"
#include "ops/attention/tensor_core_cuda.h"

namespace mica::cuda {

inline constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// AttentionShape and what turns products of queries and keys into scores, as kernels take them.
struct AttentionProblem {
  AttentionProblem(const AttentionShape& shape, const AttentionInputs& in)
      : tokens(shape.tokens),
        window(static_cast<int>(shape.window)),
        heads(static_cast<int>(shape.heads)),
        kv_heads(static_cast<int>(shape.kv_heads)),
        head_dim(static_cast<int>(shape.head_dim)),
        factor(in.factor),
        soft_cap(in.soft_cap),
        // More than a window is all of it.
        sliding(in.sliding >= shape.window ? 0 : static_cast<int>(in.sliding)) {}
  size_t tokens;
  int window, heads, kv_heads, head_dim;
  float factor;
  float soft_cap;
  int sliding;  // less than the window

  // Whether a query sees a key, both counted in their window.
  __device__ bool Sees(int query, int key) const {
    return key <= query && (sliding == 0 || key > query - sliding);
  }
  // Whether one of the queries from..to sees one of the keys, and whether all see all.
  __device__ bool AnySees(int first_query, int last_query, int first_key, int last_key) const {
    return first_key <= last_query && (sliding == 0 || last_key > first_query - sliding);
  }
  __device__ bool AllSee(int first_query, int last_query, int first_key, int last_key) const {
    return last_key <= first_query && (sliding == 0 || first_key > last_query - sliding);
  }
  // The first key that `query` sees and the last query that sees `key`.
  __device__ int FirstKey(int query) const { return sliding == 0 ? 0 : max(0, query - sliding + 1); }
  __device__ int LastQuery(int key) const {
    return sliding == 0 ? window - 1 : min(window - 1, key + sliding - 1);
  }
};

// How the blocks of a grid are dealt: items (a head of a window each) times `parts` of each (blocks of
// queries or of keys), numbered from the longest to the shortest. A section of items is done part by part,
// so that its long blocks start first and blocks that run at one time read the same keys out of the
// second-level cache.
struct AttentionOrder {
  AttentionOrder(size_t items_, size_t parts_)
      : items(static_cast<unsigned>(items_)), parts(static_cast<unsigned>(parts_)) {
    constexpr unsigned kSection = 64;  // four or five blocks of each at a time on 132 multiprocessors
    const unsigned sections = std::max(1u, (items + kSection / 2) / kSection);
    section = std::max(1u, (items + sections - 1) / sections);
  }
  unsigned blocks() const { return (items + section - 1) / section * section * parts; }

  // The place of block b; false where it has none.
  __device__ bool PlaceOf(unsigned b, int* item, int* part) const {
    const unsigned in_section = b % (section * parts);
    *item = static_cast<int>(b / (section * parts) * section + in_section % section);
    *part = static_cast<int>(in_section / section);
    return *item < static_cast<int>(items);
  }
  unsigned items, parts, section;
};

// The queries of a block of threads: kQueries from first_query on, of one head in one window. Those with the
// most keys come first.
template <int kQueries>
struct QueryPlace {
  // Of block b; false where it has none.
  __device__ bool Find(const AttentionProblem& problem, const AttentionOrder& order, unsigned b) {
    int item, part;
    if (!order.PlaceOf(b, &item, &part)) return false;
    head = item % problem.heads;
    first_query = (static_cast<int>(order.parts) - 1 - part) * kQueries;
    window_start = static_cast<size_t>(item / problem.heads) * problem.window;
    row = head * problem.tokens + window_start + first_query;
    kv_row = head / (problem.heads / problem.kv_heads) * problem.tokens + window_start;
    return true;
  }
  int head, first_query;
  size_t window_start, row, kv_row;  // rows of q and of the window's keys
};

// cap * tanh(x / cap), to 2e-7 of cap.
__device__ inline float SoftCapped(float x, float cap) {
  return cap - __fdividef(2.0f * cap, 1.0f + PowerOfTwo(2.0f * kLog2E / cap * x));
}

// ---- Tiles of BF16 rows in shared memory -------------------------------------------------------------
// kDim values a row, 64, 128 or 256, in chunks of 16 bytes; chunk c of row r lies at chunk c ^ (r % 8), so
// that the same columns of eight consecutive rows lie in different banks. A tile begins at a multiple of
// 1024 bytes.

inline constexpr int kTileWarps = 4;
inline constexpr int kTileThreads = kTileWarps * kWarp;

template <int kDim>
inline constexpr int kPitch = kDim* static_cast<int>(sizeof(__nv_bfloat16));

// Starts to copy `rows` dense rows of head_dim values (a multiple of 8, at most kDim) to a tile of kRows;
// zeros elsewhere. All threads call it.
template <int kRows, int kDim>
__device__ inline void LoadTile(uint32_t tile, const __nv_bfloat16* from, int rows, int head_dim) {
  constexpr int kChunks = kDim / 8, kAtOnce = kTileThreads / kChunks;
  static_assert(kRows % kAtOnce == 0);
  const int first = static_cast<int>(threadIdx.x) / kChunks, chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int column = 8 * chunk;
#pragma unroll 2
  for (int r = first; r < first + kRows; r += kAtOnce) {
    const bool valid = r < rows && column < head_dim;
    const int offset = valid ? r * head_dim + column : 0;
    CopyAsync16(tile + r * kPitch<kDim> + ((chunk ^ (r & 7)) << 4), from + offset, valid);
  }
}

// What this lane adds to the address of a tile to load, with LoadMatrices, a [16, 16] as the first operand of
// MultiplyTile, or with LoadMatricesTransposed b [16, 16] as the second: b0, b1 of columns 0 to 7, then of 8
// to 15. Further columns 16 i: ^ (i << 5); further rows 16 i: + 16 i kPitch, after that.
template <int kDim>
__device__ inline uint32_t LaneOfRows() {
  const uint32_t lane = threadIdx.x % kWarp;
  return (lane & 15) * kPitch<kDim> + (((lane >> 4) ^ (lane & 7)) << 4);
}
// The same to load, with LoadMatrices, the transpose of [16 rows, 16 columns] as the second operand: b0, b1
// of rows 0 to 7, then of 8 to 15.
template <int kDim>
__device__ inline uint32_t LaneOfTransposed() {
  const uint32_t lane = threadIdx.x % kWarp;
  return ((lane & 7) + ((lane >> 4) << 3)) * kPitch<kDim> + ((((lane >> 3) & 1) ^ (lane & 7)) << 4);
}

template <int kM, int kN>
__device__ inline void Clear(float (&c)[kM][kN][4]) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) c[m][n][i] = 0.0f;
    }
  }
}

// c += a b^T: a, 16 kM rows at an address of LaneOfRows, b, 8 kN rows at one of LaneOfTransposed; kDim
// columns both.
template <int kDim, int kM, int kN>
__device__ inline void MultiplyTransposed(uint32_t a, uint32_t b, float (&c)[kM][kN][4]) {
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    uint32_t x[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) LoadMatrices((a ^ (k << 5)) + m * 16 * kPitch<kDim>, x[m]);
#pragma unroll
    for (int n = 0; n < kN / 2; ++n) {
      uint32_t y[4];
      LoadMatrices((b ^ (k << 5)) + n * 16 * kPitch<kDim>, y);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        MultiplyTile(c[m][2 * n], x[m], y[0], y[1]);
        MultiplyTile(c[m][2 * n + 1], x[m], y[2], y[3]);
      }
    }
  }
}

// c += p b: p, [16 kM, 8 kK] as MultiplyTile has left it, rounded to BF16; b, 8 kK rows and 8 kN columns at
// an address of LaneOfRows.
template <int kDim, int kM, int kK, int kN>
__device__ inline void MultiplyRounded(const float (&p)[kM][kK][4], uint32_t b, float (&c)[kM][kN][4]) {
#pragma unroll
  for (int k = 0; k < kK / 2; ++k) {
    uint32_t x[kM][4];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&pair)[4] = p[m][2 * k + i / 2];
        x[m][i] = Pair(pair[i % 2 * 2], pair[i % 2 * 2 + 1]);
      }
    }
#pragma unroll
    for (int n = 0; n < kN / 2; ++n) {
      uint32_t y[4];
      LoadMatricesTransposed((b ^ (n << 5)) + k * 16 * kPitch<kDim>, y);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        MultiplyTile(c[m][2 * n], x[m], y[0], y[1]);
        MultiplyTile(c[m][2 * n + 1], x[m], y[2], y[3]);
      }
    }
  }
}

// Whether the kernels with tensor cores take these operands.
inline bool FitsTiles(const AttentionShape& shape, const AttentionInputs& in) {
  const auto aligned = [](const ConstTensor& x) { return reinterpret_cast<uintptr_t>(x.data) % 16 == 0; };
  return in.q.dtype == DType::kBF16 && shape.head_dim % 8 == 0 && shape.head_dim <= 256 && aligned(in.q) &&
         aligned(in.k) && aligned(in.v);
}

// Calls body with the least kDim of tiles that holds head_dim, as an integral constant.
template <typename Body>
void WithTileDim(size_t head_dim, const Body& body) {
  if (head_dim <= 64) return body(std::integral_constant<int, 64>{});
  if (head_dim <= 128) return body(std::integral_constant<int, 128>{});
  body(std::integral_constant<int, 256>{});
}

// What the gradient needs of a query: its log-sum in units of log 2, and sum_i grad_out_i out_i over the
// channels of its head. Rows lie as [heads, tokens].
struct AttentionRow {
  float log2_sum, mean;
};

// The kernels for any type and size, without tensor cores (attention_plain_cuda.cu).
void PlainAttention(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums);
void PlainAttentionGradient(const AttentionShape& shape, const AttentionInputs& in, const AttentionRow* rows,
                            ConstTensor grad_out, const AttentionGradients& out);

}  // namespace mica::cuda
