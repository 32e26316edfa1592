// The gradient of attention of BF16 heads on tensor cores. Scores and their gradients are computed twice, by
// the blocks that sum over queries (for keys and values) and by those that sum over keys (for queries): seven
// products instead of five, but no sum is shared by blocks, so there are no atomics and nothing of the size
// tokens x tokens. As in the forward pass, the rows of a warp are its own, and what it computes of them never
// leaves its registers.
#include "ops/attention/attention_cuda.h"
#include "ops/cuda_ops.h"
#include "ops/tile/dispatch.h"

namespace mica::cuda {
namespace {

constexpr int kRowThreads = 256;

// A warp a token and head; consecutive ones lie next to each other.
template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    PrepareRows(AttentionProblem problem, View<const T> out, View<const float> grad_out,
                View<const float> log_sums, AttentionRow* rows, __nv_bfloat16* felt) {
  const size_t index = static_cast<size_t>(blockIdx.x) * (kRowThreads / kWarp) + threadIdx.x / kWarp;
  if (index >= problem.tokens * problem.heads) return;
  const size_t token = index / problem.heads, head = index % problem.heads,
               row = head * problem.tokens + token;
  const int head_dim = problem.head_dim;
  const T* result = out.row(token) + head * head_dim;
  const float* gradient = grad_out.row(token) + head * head_dim;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < head_dim; i += kWarp) {
    const float g = gradient[i];
    sum += g * ToFloat(result[i]);
    if (felt != nullptr) felt[row * head_dim + i] = __float2bfloat16_rn(g);
  }
  sum = WarpSum(sum);
  if (threadIdx.x % kWarp == 0) rows[row] = {log_sums.data[row] * kLog2E, sum};
}

// One pair of query and key: the probability of a product of both.
struct Softmax {
  __device__ explicit Softmax(const AttentionProblem& p)
      : soft_cap(p.soft_cap), factor(p.factor), scale((p.soft_cap > 0 ? 1.0f : p.factor) * kLog2E) {}
  __device__ float Probability(float product, float log2_sum) const {
    return PowerOfTwo(
        fmaf(soft_cap > 0 ? SoftCapped(factor * product, soft_cap) : product, scale, -log2_sum));
  }
  // The gradient of the product over `factor`, from that of the probability.
  __device__ float Gradient(float p, float grad_p, AttentionRow row) const {
    const float gradient = p * (grad_p - row.mean);
    if (soft_cap <= 0 || p <= 0) return gradient;
    const float score = (__log2f(p) + row.log2_sum) * kLn2 / soft_cap;  // tanh(factor * product / soft_cap)
    return gradient * (1.0f - score * score);
  }
  float soft_cap, factor, scale;
};

// ---- Keys and values ---------------------------------------------------------------------------------

// Each of four warps has 16 keys, as rows of the first operand; queries come by tiles. Of 256 columns a block
// sums 128, so that the sums of two gradients fit registers; blockIdx.y says which.
template <int kDim>
struct KeyTiles {
  static constexpr int kKeys = kTileWarps * 16;
  static constexpr int kQueries = kDim <= 128 ? 64 : 32;  // of a tile
  static constexpr int kStages = kDim <= 128 ? 2 : 1;
  static constexpr int kSums = std::min(kDim, 128);  // columns
  static constexpr int kKeyBytes = kKeys * kPitch<kDim>;
  static constexpr int kQueryBytes = kQueries * kPitch<kDim>;
  static constexpr int kRowBytes = kQueries * static_cast<int>(sizeof(AttentionRow));
  static constexpr int kSharedBytes = 2 * kKeyBytes + kStages * (2 * kQueryBytes + kRowBytes);
};

template <int kDim>
__global__ void __launch_bounds__(kTileThreads, 2)
    SumKeyGradients(AttentionProblem problem, AttentionOrder order, const __nv_bfloat16* q,
                    const __nv_bfloat16* k, const __nv_bfloat16* v, const __nv_bfloat16* felt,
                    const AttentionRow* rows, float* grad_k, float* grad_v) {
  using Tiles = KeyTiles<kDim>;
  constexpr int kQueries = Tiles::kQueries, kColumns = Tiles::kSums / 8;
  int item, part;
  if (!order.PlaceOf(blockIdx.x, &item, &part)) return;
  const int window = problem.window, head_dim = problem.head_dim, group = problem.heads / problem.kv_heads,
            kv_head = item % problem.kv_heads, first_key = part * Tiles::kKeys;
  const size_t window_start = static_cast<size_t>(item / problem.kv_heads) * window;
  const size_t kv_row = kv_head * problem.tokens + window_start + first_key;

  const uint32_t keys = SharedAddress(SharedMemory()), values = keys + Tiles::kKeyBytes;
  const uint32_t queries = values + Tiles::kKeyBytes,
                 feedback = queries + Tiles::kStages * Tiles::kQueryBytes,
                 row_facts = feedback + Tiles::kStages * Tiles::kQueryBytes;
  const AttentionRow* shared_rows = reinterpret_cast<const AttentionRow*>(
      SharedMemory() + 2 * Tiles::kKeyBytes + 2 * Tiles::kStages * Tiles::kQueryBytes);
  const auto load = [&](int stage, int head, int tile) {
    const int first = tile * kQueries, count = window - first;
    const size_t row = head * problem.tokens + window_start + first;
    LoadTile<kQueries, kDim>(queries + stage * Tiles::kQueryBytes, q + row * head_dim, count, head_dim);
    LoadTile<kQueries, kDim>(feedback + stage * Tiles::kQueryBytes, felt + row * head_dim, count, head_dim);
    const int r = threadIdx.x;
    if (r < kQueries) {
      const bool valid = r < count;
      CopyAsync8(row_facts + stage * Tiles::kRowBytes + r * sizeof(AttentionRow),
                 rows + (valid ? row + r : 0), valid);
    }
  };

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int warp_key = first_key + warp * 16;
  const uint32_t warp_keys = warp * 16 * kPitch<kDim> + LaneOfRows<kDim>();
  const uint32_t half = blockIdx.y * Tiles::kSums * sizeof(__nv_bfloat16);  // offset of the columns it sums
  const Softmax softmax(problem);

  float sums_k[1][kColumns][4], sums_v[1][kColumns][4];
  Clear(sums_k);
  Clear(sums_v);
  const int first_tile = first_key / kQueries;
  const int last_tile = problem.LastQuery(min(window, first_key + Tiles::kKeys) - 1) / kQueries;
  int head = kv_head * group, tile = first_tile, stage = 0;
  const int last_head = head + group - 1;
  LoadTile<Tiles::kKeys, kDim>(keys, k + kv_row * head_dim, window - first_key, head_dim);
  LoadTile<Tiles::kKeys, kDim>(values, v + kv_row * head_dim, window - first_key, head_dim);
  load(0, head, tile);
#pragma unroll 1
  for (;;) {
    WaitForCopies();
    __syncthreads();  // copies of all threads are there, and nobody works on what is overwritten now
    const bool last = tile == last_tile && head == last_head;
    const int next_tile = tile == last_tile ? first_tile : tile + 1,
              next_head = tile == last_tile ? head + 1 : head;
    if constexpr (Tiles::kStages == 2) {
      if (!last) load(stage ^ 1, next_head, next_tile);
    }
    const int first_query = tile * kQueries;
    if (problem.AnySees(first_query, first_query + kQueries - 1, warp_key, warp_key + 15)) {
      const uint32_t tile_queries = queries + stage * Tiles::kQueryBytes,
                     tile_feedback = feedback + stage * Tiles::kQueryBytes;
      const AttentionRow* facts = shared_rows + stage * kQueries + 2 * t;
      float p[1][kQueries / 8][4];  // [key][query]
      Clear(p);
      MultiplyTransposed<kDim>(keys + warp_keys, tile_queries + LaneOfTransposed<kDim>(), p);
      const bool all = problem.AllSee(first_query, first_query + kQueries - 1, warp_key, warp_key + 15);
#pragma unroll
      for (int n = 0; n < kQueries / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          p[0][n][i] = softmax.Probability(p[0][n][i], facts[8 * n + i % 2].log2_sum);
          const int query = first_query + 8 * n + 2 * t + i % 2, key = warp_key + g + 8 * (i / 2);
          if (!all && !problem.Sees(query, key)) p[0][n][i] = 0.0f;
        }
      }
      MultiplyRounded<kDim>(p, (tile_feedback + LaneOfRows<kDim>()) ^ half, sums_v);
      float grad[1][kQueries / 8][4];
      Clear(grad);
      MultiplyTransposed<kDim>(values + warp_keys, tile_feedback + LaneOfTransposed<kDim>(), grad);
#pragma unroll
      for (int n = 0; n < kQueries / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i)
          grad[0][n][i] = softmax.Gradient(p[0][n][i], grad[0][n][i], facts[8 * n + i % 2]);
      }
      MultiplyRounded<kDim>(grad, (tile_queries + LaneOfRows<kDim>()) ^ half, sums_k);
    }
    if (last) break;
    tile = next_tile;
    head = next_head;
    if constexpr (Tiles::kStages == 2) {
      stage ^= 1;
    } else {
      __syncthreads();
      load(0, head, tile);
    }
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (warp_key + g + 8 * h >= window) continue;
    const size_t place = (kv_row + warp * 16 + g + 8 * h) * head_dim;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int column = static_cast<int>(blockIdx.y) * Tiles::kSums + 8 * n;
      if (column >= head_dim) break;
      const size_t to = place + column + 2 * t;
      *reinterpret_cast<float2*>(grad_k + to) =
          float2{problem.factor * sums_k[0][n][2 * h], problem.factor * sums_k[0][n][2 * h + 1]};
      *reinterpret_cast<float2*>(grad_v + to) = float2{sums_v[0][n][2 * h], sums_v[0][n][2 * h + 1]};
    }
  }
}

// ---- Queries -----------------------------------------------------------------------------------------

// Each of four warps has 16 kM queries; keys and values come by tiles.
template <int kDim>
struct QueryTiles {
  static constexpr int kM = kDim <= 128 ? 2 : 1;
  static constexpr int kQueries = kTileWarps * 16 * kM;
  static constexpr int kKeys = 32;  // of a tile
  static constexpr int kStages = kDim <= 128 ? 2 : 1;
  static constexpr int kKeyBytes = kKeys * kPitch<kDim>;
  static constexpr int kQueryBytes = kQueries * kPitch<kDim>;
  static constexpr int kSharedBytes = 2 * kQueryBytes + 2 * kStages * kKeyBytes;
};

template <int kDim>
__global__ void __launch_bounds__(kTileThreads, 2)
    SumQueryGradients(AttentionProblem problem, AttentionOrder order, const __nv_bfloat16* q,
                      const __nv_bfloat16* k, const __nv_bfloat16* v, const __nv_bfloat16* felt,
                      const AttentionRow* rows, float* grad_q) {
  using Tiles = QueryTiles<kDim>;
  constexpr int kM = Tiles::kM, kKeys = Tiles::kKeys;
  QueryPlace<Tiles::kQueries> queries_of;
  if (!queries_of.Find(problem, order, blockIdx.x)) return;
  const auto [head, first_query, window_start, row, kv_row] = queries_of;
  const int window = problem.window, head_dim = problem.head_dim;

  const uint32_t queries = SharedAddress(SharedMemory()), feedback = queries + Tiles::kQueryBytes;
  const uint32_t keys = feedback + Tiles::kQueryBytes, values = keys + Tiles::kStages * Tiles::kKeyBytes;
  const auto load = [&](int stage, int tile) {
    const size_t place = (kv_row + static_cast<size_t>(tile) * kKeys) * head_dim;
    LoadTile<kKeys, kDim>(keys + stage * Tiles::kKeyBytes, k + place, window - tile * kKeys, head_dim);
    LoadTile<kKeys, kDim>(values + stage * Tiles::kKeyBytes, v + place, window - tile * kKeys, head_dim);
  };

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int warp_query = first_query + warp * 16 * kM, last_warp_query = warp_query + 16 * kM - 1;
  const uint32_t warp_rows = warp * 16 * kM * kPitch<kDim> + LaneOfRows<kDim>();
  const Softmax softmax(problem);
  AttentionRow facts[kM][2] = {};
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = warp * 16 * kM + 16 * m + g + 8 * h;
      if (first_query + r < window) facts[m][h] = rows[row + r];
    }
  }

  float sums[kM][kDim / 8][4];
  Clear(sums);
  int tile = problem.FirstKey(first_query) / kKeys, stage = 0;
  const int last_tile = (min(window, first_query + Tiles::kQueries) - 1) / kKeys;
  LoadTile<Tiles::kQueries, kDim>(queries, q + row * head_dim, window - first_query, head_dim);
  LoadTile<Tiles::kQueries, kDim>(feedback, felt + row * head_dim, window - first_query, head_dim);
  load(0, tile);
#pragma unroll 1
  for (;;) {
    WaitForCopies();
    __syncthreads();  // copies of all threads are there, and nobody works on what is overwritten now
    if constexpr (Tiles::kStages == 2) {
      if (tile < last_tile) load(stage ^ 1, tile + 1);
    }
    const int first_key = tile * kKeys;
    if (problem.AnySees(warp_query, last_warp_query, first_key, first_key + kKeys - 1)) {
      const uint32_t tile_keys = keys + stage * Tiles::kKeyBytes,
                     tile_values = values + stage * Tiles::kKeyBytes;
      float p[kM][kKeys / 8][4], grad[kM][kKeys / 8][4];
      Clear(p);
      MultiplyTransposed<kDim>(queries + warp_rows, tile_keys + LaneOfTransposed<kDim>(), p);
      Clear(grad);
      MultiplyTransposed<kDim>(feedback + warp_rows, tile_values + LaneOfTransposed<kDim>(), grad);
      const bool all = problem.AllSee(warp_query, last_warp_query, first_key, first_key + kKeys - 1);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const AttentionRow fact = facts[m][i / 2];
            float probability = softmax.Probability(p[m][n][i], fact.log2_sum);
            const int query = warp_query + 16 * m + g + 8 * (i / 2), key = first_key + 8 * n + 2 * t + i % 2;
            if (!all && !problem.Sees(query, key)) probability = 0.0f;
            grad[m][n][i] = softmax.Gradient(probability, grad[m][n][i], fact);
          }
        }
      }
      MultiplyRounded<kDim>(grad, tile_keys + LaneOfRows<kDim>(), sums);
    }
    if (tile == last_tile) break;
    ++tile;
    if constexpr (Tiles::kStages == 2) {
      stage ^= 1;
    } else {
      __syncthreads();
      load(0, tile);
    }
  }

#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = warp * 16 * kM + 16 * m + g + 8 * h;
      if (first_query + r >= window) continue;
      float* to = grad_q + (row + r) * head_dim + 2 * t;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        if (8 * n >= head_dim) break;
        *reinterpret_cast<float2*>(to + 8 * n) =
            float2{problem.factor * sums[m][n][2 * h], problem.factor * sums[m][n][2 * h + 1]};
      }
    }
  }
}

template <int kDim>
void GradientOnTiles(const AttentionShape& shape, const AttentionInputs& in, const AttentionRow* rows,
                     ConstTensor felt, const AttentionGradients& out) {
  const AttentionProblem problem(shape, in);
  const size_t windows = shape.tokens / shape.window;
  const auto *q = In<BF16>(in.q).data, *k = In<BF16>(in.k).data, *v = In<BF16>(in.v).data,
             *grad_out = In<BF16>(felt).data;
  using Keys = KeyTiles<kDim>;
  const AttentionOrder by_keys(shape.kv_heads * windows, Blocks(shape.window, Keys::kKeys));
  Launch(in.q.device, SumKeyGradients<kDim>, dim3(by_keys.blocks(), kDim / Keys::kSums), kTileThreads,
         Keys::kSharedBytes, problem, by_keys, q, k, v, grad_out, rows, Out<float>(out.k).data,
         Out<float>(out.v).data);
  using Queries = QueryTiles<kDim>;
  const AttentionOrder by_queries(shape.heads * windows, Blocks(shape.window, Queries::kQueries));
  Launch(in.q.device, SumQueryGradients<kDim>, by_queries.blocks(), kTileThreads, Queries::kSharedBytes,
         problem, by_queries, q, k, v, grad_out, rows, Out<float>(out.q).data);
}

}  // namespace

void AttentionGradient(const AttentionShape& shape, const AttentionInputs& in,
                       const AttentionFeedback& feedback, const AttentionGradients& out) {
  const Device device = in.q.device;
  const bool tiles = FitsTiles(shape, in);
  const Values<AttentionRow> rows(device, shape.heads * shape.tokens);
  Array felt;  // what the results feel, head by head
  if (tiles) felt.Resize(shape.heads * shape.tokens, shape.head_dim, DType::kBF16, device);
  DispatchOperand(in.q.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(device, PrepareRows<OnDevice<T>>, Blocks(shape.heads * shape.tokens, kRowThreads / kWarp),
           kRowThreads, 0, AttentionProblem(shape, in), In<T>(feedback.out), In<float>(feedback.grad_out),
           In<float>(feedback.log_sums), rows.data(), tiles ? Out<BF16>(felt.view()).data : nullptr);
  });
  if (!tiles) return PlainAttentionGradient(shape, in, rows.data(), feedback.grad_out, out);
  WithTileDim(shape.head_dim, [&](auto dim) {
    GradientOnTiles<decltype(dim)::value>(shape, in, rows.data(), felt.view(), out);
  });
}

}  // namespace mica::cuda
