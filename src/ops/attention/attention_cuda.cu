// Attention of BF16 heads on tensor cores: a block of threads a block of queries, a tile of keys and values
// at a time, the softmax online in FP32 (Dao 2023, FlashAttention-2). A warp has its own queries and sees
// them through, so that scores and probabilities never leave its registers.
#include "ops/attention/attention_cuda.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kKeys = 64;  // of a tile

// What a kernel for rows of kDim values has: each warp 16 kM queries (two operands' rows a matrix of keys or
// values that it loads; of 256 columns, registers hold the sums of 16 only), kStages tiles of keys and of
// values. With one, a tile of keys is read while that of values is multiplied and the other way round.
template <int kDim, int kStages>
struct ForwardTiles {
  static constexpr int kM = kDim <= 128 ? 2 : 1;
  static constexpr int kQueries = kTileWarps * 16 * kM;
  static constexpr int kKeyBytes = kKeys * kPitch<kDim>;
  static constexpr int kQueryBytes = kQueries * kPitch<kDim>;
  static constexpr int kSharedBytes = kQueryBytes + 2 * kStages * kKeyBytes;
};

template <int kDim, int kStages>
__global__ void __launch_bounds__(kTileThreads, 2)
    AttendTiles(AttentionProblem problem, AttentionOrder order, const __nv_bfloat16* q,
                const __nv_bfloat16* k, const __nv_bfloat16* v, View<__nv_bfloat16> out, bool pairs,
                float* log_sums) {
  using Tiles = ForwardTiles<kDim, kStages>;
  constexpr int kM = Tiles::kM;
  QueryPlace<Tiles::kQueries> place;
  if (!place.Find(problem, order, blockIdx.x)) return;
  const auto [head, first_query, window_start, row, kv_row] = place;
  const int window = problem.window, head_dim = problem.head_dim;
  q += row * head_dim;
  k += kv_row * head_dim;
  v += kv_row * head_dim;

  const uint32_t queries = SharedAddress(SharedMemory());
  const uint32_t keys = queries + Tiles::kQueryBytes, values = keys + kStages * Tiles::kKeyBytes;
  const auto load = [&](uint32_t tile, const __nv_bfloat16* from, int t) {
    LoadTile<kKeys, kDim>(tile, from + static_cast<size_t>(t) * kKeys * head_dim, window - t * kKeys,
                          head_dim);
  };

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int warp_query = first_query + warp * 16 * kM, last_warp_query = warp_query + 16 * kM - 1;
  const uint32_t warp_queries = queries + warp * 16 * kM * kPitch<kDim> + LaneOfRows<kDim>();
  // exp(score) = 2^(scale * s), where s is what `scores` hold.
  const float scale = (problem.soft_cap > 0 ? 1.0f : problem.factor) * kLog2E;

  float sums[kM][kDim / 8][4];
  Clear(sums);
  float largest[kM][2], total[kM][2];  // of rows g and g + 8; totals are of this lane's columns
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    largest[m][0] = largest[m][1] = -INFINITY;
    total[m][0] = total[m][1] = 0.0f;
  }

  int tile = problem.FirstKey(first_query) / kKeys;
  const int last_tile = (min(window, first_query + Tiles::kQueries) - 1) / kKeys;
  LoadTile<Tiles::kQueries, kDim>(queries, q, window - first_query, head_dim);
  load(keys, k, tile);
  if constexpr (kStages == 2) load(values, v, tile);
  uint32_t stage = 0;  // offset of the tiles at work
#pragma unroll 1
  for (; tile <= last_tile; ++tile) {
    WaitForCopies();
    __syncthreads();  // copies of all threads are there, and nobody works on what is overwritten now
    if constexpr (kStages == 1) {
      load(values, v, tile);
    } else if (tile < last_tile) {
      load(keys + (stage ^ Tiles::kKeyBytes), k, tile + 1);
      load(values + (stage ^ Tiles::kKeyBytes), v, tile + 1);
    }
    const int first_key = tile * kKeys;
    const bool seen = problem.AnySees(warp_query, last_warp_query, first_key, first_key + kKeys - 1);
    float scores[kM][kKeys / 8][4];
    if (seen) {
      Clear(scores);
      MultiplyTransposed<kDim>(warp_queries, keys + stage + LaneOfTransposed<kDim>(), scores);
    }
    if constexpr (kStages == 1) {
      WaitForCopies();
      __syncthreads();
      if (tile < last_tile) load(keys, k, tile + 1);
    }
    if (seen) {
      if (problem.soft_cap > 0) {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
          for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
              scores[m][n][i] = SoftCapped(problem.factor * scores[m][n][i], problem.soft_cap);
          }
        }
      }
      if (!problem.AllSee(warp_query, last_warp_query, first_key, first_key + kKeys - 1)) {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
#pragma unroll
          for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              const int query = warp_query + 16 * m + g + 8 * (i / 2),
                        key = first_key + 8 * n + 2 * t + i % 2;
              if (!problem.Sees(query, key)) scores[m][n][i] = -INFINITY;
            }
          }
        }
      }
#pragma unroll
      for (int m = 0; m < kM; ++m) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float most = largest[m][h];
#pragma unroll
          for (int n = 0; n < kKeys / 8; ++n)
            most = fmaxf(most, fmaxf(scores[m][n][2 * h], scores[m][n][2 * h + 1]));
          most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
          most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
          // A row that has seen no key yet keeps its sums of zero.
          const float shift = most == -INFINITY ? 0.0f : most * scale;
          const float rescale = PowerOfTwo(largest[m][h] * scale - shift);
          largest[m][h] = most;
          float sum = total[m][h] * rescale;
#pragma unroll
          for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; ++i) {
              scores[m][n][i] = PowerOfTwo(fmaf(scores[m][n][i], scale, -shift));
              sum += scores[m][n][i];
            }
          }
          total[m][h] = sum;
#pragma unroll
          for (int n = 0; n < kDim / 8; ++n) {
            sums[m][n][2 * h] *= rescale;
            sums[m][n][2 * h + 1] *= rescale;
          }
        }
      }
      MultiplyRounded<kDim>(scores, values + stage + LaneOfRows<kDim>(), sums);
    }
    if constexpr (kStages == 2) stage ^= Tiles::kKeyBytes;
  }

#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = total[m][h];
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      const int query = warp_query + 16 * m + g + 8 * h;
      if (query >= window) continue;
      const size_t token = window_start + query;
      if (log_sums != nullptr && t == 0)
        log_sums[head * problem.tokens + token] = (largest[m][h] * scale + log2f(sum)) * kLn2;
      const float inverse = 1.0f / sum;
      __nv_bfloat16* to = out.row(token) + static_cast<size_t>(head) * head_dim + 2 * t;
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        if (8 * n >= head_dim) break;
        const float first = sums[m][n][2 * h] * inverse, second = sums[m][n][2 * h + 1] * inverse;
        if (pairs) {
          *reinterpret_cast<uint32_t*>(to + 8 * n) = Pair(first, second);
        } else {
          to[8 * n] = __float2bfloat16_rn(first);
          to[8 * n + 1] = __float2bfloat16_rn(second);
        }
      }
    }
  }
}

size_t SharedBytesOfMultiprocessor(Device device) {
  int bytes = 0;
  CheckCuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device.index()),
            "asking for the size of shared memory");
  return static_cast<size_t>(bytes);
}

template <int kDim, int kStages>
void AttendOnTiles(const AttentionShape& shape, const AttentionInputs& in, Tensor out_tensor,
                   Tensor log_sums) {
  using Tiles = ForwardTiles<kDim, kStages>;
  const View<__nv_bfloat16> out = Out<BF16>(out_tensor);
  const bool pairs = reinterpret_cast<uintptr_t>(out.data) % 4 == 0 && out.stride % 2 == 0;
  const AttentionOrder order(shape.heads * (shape.tokens / shape.window),
                             Blocks(shape.window, Tiles::kQueries));
  Launch(in.q.device, AttendTiles<kDim, kStages>, order.blocks(), kTileThreads, Tiles::kSharedBytes,
         AttentionProblem(shape, in), order, In<BF16>(in.q).data, In<BF16>(in.k).data, In<BF16>(in.v).data,
         out, pairs, log_sums.empty() ? nullptr : Out<float>(log_sums).data);
}

}  // namespace

void Attention(const AttentionShape& shape, const AttentionInputs& in, Tensor out, Tensor log_sums) {
  if (!FitsTiles(shape, in)) return PlainAttention(shape, in, out, log_sums);
  WithTileDim(shape.head_dim, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    if constexpr (kDim == 256) {
      AttendOnTiles<kDim, 1>(shape, in, out, log_sums);
    } else {
      // Two blocks should find room on a multiprocessor.
      if (2 * (ForwardTiles<kDim, 2>::kSharedBytes + 1024) <= SharedBytesOfMultiprocessor(in.q.device)) {
        AttendOnTiles<kDim, 2>(shape, in, out, log_sums);
      } else {
        AttendOnTiles<kDim, 1>(shape, in, out, log_sums);
      }
    }
  });
}

}  // namespace mica::cuda
