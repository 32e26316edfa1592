// Many new tokens: a block of threads is a query; its warps take keys in turn, each with a softmax of its
// own, and join at the end in a fixed order.
//
// Few: the keys of a query are cut into pieces of kPieceKeys that begin at multiples of it, and blocks take
// pieces in turn, for all queries that share the keys. A few lanes are a team that takes one key at a time,
// eight channels a lane, with a softmax of its own; teams, then warps, then pieces join in a fixed order. The
// block that is done last joins the pieces. So a result depends on its query, its position and the keys
// alone.
#include <algorithm>
#include <bit>
#include <cfloat>

#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"
#include "ops/rope/rope_cuda.h"
#include "ops/thread_memory_cuda.h"

namespace mica::cuda {
namespace {

// Channels of a head that a lane holds at most: heads of up to 256.
constexpr int kChannels = 8, kMostChannels = kChannels * kWarp;
constexpr float kLargestF16 = 65504.0f;

// Rows of a cache on the device: F16, or I8 with a scale each.
struct CacheRows {
  __half* halves;
  int8_t* bytes;
  float* scales;
  __device__ float Scale(size_t row) const { return halves != nullptr ? 1.0f : scales[row]; }
  __device__ float Value(size_t at) const {
    return halves != nullptr ? __half2float(halves[at]) : static_cast<float>(bytes[at]);
  }
};
CacheRows RowsOf(const Tensor& rows, const Tensor& scales) {
  const bool halves = rows.dtype == DType::kF16;
  return {halves ? reinterpret_cast<__half*>(rows.data) : nullptr,
          halves ? nullptr : reinterpret_cast<int8_t*>(rows.data),
          halves ? nullptr : reinterpret_cast<float*>(scales.data)};
}
const int32_t* PastIn(const ConstTensor& past) { return reinterpret_cast<const int32_t*>(past.data); }

__global__ void StorePast(int32_t tokens, int32_t* past) { *past = tokens; }

// -- New heads.

constexpr int kHeadWarps = 4;

struct HeadsProblem {
  View<const float> q, k, v;
  Turns query_turns, key_turns;
  const int32_t* past;
  float* q_out;
  CacheRows k_out, v_out;
  size_t capacity;
  int heads, kv_heads, head_dim;
};

// visit(channel, value) for the channels of a head that a lane has, turned by the angle of a position.
template <typename Visit>
__device__ __forceinline__ void ForTurned(const float* values, const Turns& turns, size_t position,
                                          size_t head_dim, const Visit& visit) {
  for (size_t i = threadIdx.x % kWarp; i < Turns::Pairs(head_dim); i += kWarp) {
    const Pair pair = turns.At(i, head_dim);
    float a = values[pair.first], b = pair.alone ? 0.0f : values[pair.second];
    if (pair.turns) {
      const float cosine = turns.cosines[position * turns.half + pair.first],
                  sine = turns.sines[position * turns.half + pair.first];
      const float turned = a * cosine - b * sine;
      b = b * cosine + a * sine;
      a = turned;
    }
    visit(pair.first, a);
    if (!pair.alone) visit(pair.second, b);
  }
}

// A warp is a head of a token: first those of queries, then of keys, then of values.
__global__ void __launch_bounds__(kHeadWarps* kWarp) PlaceHeads(const __grid_constant__ HeadsProblem p) {
  LetNextBegin();
  WaitForWorkBefore();
  const size_t head_dim = p.head_dim, tokens = p.q.rows;
  const size_t row = blockIdx.x * size_t{kHeadWarps} + threadIdx.x / kWarp;
  size_t head = row / tokens;
  const size_t t = row % tokens;
  if (head >= static_cast<size_t>(p.heads + 2 * p.kv_heads)) return;
  const size_t position = static_cast<size_t>(*p.past) + t;
  if (head < static_cast<size_t>(p.heads)) {
    float* const out = p.q_out + (head * tokens + t) * head_dim;
    return ForTurned(p.q.row(t) + head * head_dim, p.query_turns, position, head_dim,
                     [&](size_t i, float value) { out[i] = value; });
  }
  head -= p.heads;
  const bool of_keys = head < static_cast<size_t>(p.kv_heads);
  if (!of_keys) head -= p.kv_heads;
  const float* const values = (of_keys ? p.k : p.v).row(t) + head * head_dim;
  const Turns turns = of_keys ? p.key_turns : Turns{nullptr, nullptr, 1, 0};
  const CacheRows out = of_keys ? p.k_out : p.v_out;
  const size_t to = head * p.capacity + position;
  if (out.halves != nullptr) {
    return ForTurned(values, turns, position, head_dim, [&](size_t i, float value) {
      out.halves[to * head_dim + i] = __float2half_rn(fminf(fmaxf(value, -kLargestF16), kLargestF16));
    });
  }
  float largest = 0.0f;
  ForTurned(values, turns, position, head_dim,
            [&](size_t, float value) { largest = fmaxf(largest, fabsf(value)); });
  largest = WarpMax(largest);
  const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
  ForTurned(values, turns, position, head_dim, [&](size_t i, float value) {
    out.bytes[to * head_dim + i] = static_cast<int8_t>(rintf(value * inverse));
  });
  if (threadIdx.x % kWarp == 0) out.scales[to] = largest / 127.0f;
}

struct Problem {
  const int32_t* past;
  int tokens, heads, kv_heads, head_dim, sliding;
  size_t capacity;
  float factor, soft_cap;

  // The first key that a token sees, both counted in the sequence.
  __device__ int FirstSeen(int position) const {
    return sliding == 0 || position < sliding ? 0 : position + 1 - sliding;
  }
};

// -- Many new tokens.

constexpr int kWarps = 8, kThreads = kWarps * kWarp;

__global__ void __launch_bounds__(kThreads)
    Attend(Problem p, const float* q, CacheRows k, CacheRows v, float* out, size_t out_stride) {
  __shared__ float maxima[kWarps], totals[kWarps];
  __shared__ float partial[kWarps][kMostChannels];
  const int head = static_cast<int>(blockIdx.x), t = static_cast<int>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const size_t base = head / (p.heads / p.kv_heads) * p.capacity;
  const int position = *p.past + t, begin = p.FirstSeen(position);
  float query[kChannels], sum[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const int i = c * kWarp + lane;
    query[c] = i < p.head_dim ? q[(static_cast<size_t>(head) * p.tokens + t) * p.head_dim + i] : 0.0f;
    sum[c] = 0.0f;
  }
  float largest = -FLT_MAX, total = 0.0f;
  for (int s = begin + warp; s <= position; s += kWarps) {
    const size_t row = base + s;
    float score = 0.0f;
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const int i = c * kWarp + lane;
      if (i < p.head_dim) score += query[c] * k.Value(row * p.head_dim + i);
    }
    score = WarpSum(score) * k.Scale(row) * p.factor;
    if (p.soft_cap > 0.0f) score = p.soft_cap * tanhf(score / p.soft_cap);
    const float next = fmaxf(largest, score), rescale = __expf(largest - next), weight = __expf(score - next);
    largest = next;
    total = total * rescale + weight;
    const float scaled = weight * v.Scale(row);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      const int i = c * kWarp + lane;
      if (i < p.head_dim) sum[c] = sum[c] * rescale + scaled * v.Value(row * p.head_dim + i);
    }
  }
#pragma unroll
  for (int c = 0; c < kChannels; ++c) partial[warp][c * kWarp + lane] = sum[c];
  if (lane == 0) {
    maxima[warp] = largest;
    totals[warp] = total;
  }
  __syncthreads();
  float all = -FLT_MAX, denominator = 0.0f;
  for (int w = 0; w < kWarps; ++w) all = fmaxf(all, maxima[w]);
  for (int w = 0; w < kWarps; ++w) denominator += totals[w] * __expf(maxima[w] - all);
  for (int i = static_cast<int>(threadIdx.x); i < p.head_dim; i += kThreads) {
    float value = 0.0f;
    for (int w = 0; w < kWarps; ++w) value += partial[w][i] * __expf(maxima[w] - all);
    out[t * out_stride + static_cast<size_t>(head) * p.head_dim + i] = value / denominator;
  }
}

// -- Few new tokens.

constexpr int kPieceKeys = 64;
constexpr int kFewWarps = 4, kFewThreads = kFewWarps * kWarp;
constexpr int kKeysAhead = 4;  // of a team, read together
// So many blocks a multiprocessor have enough reads under way.
constexpr int kFewBlocks = 4;

// What is left of a piece for a query: the weights' sum, for scores less `largest`.
struct PieceState {
  float largest, total;
};
struct FewProblem {
  Problem of;
  int team;    // lanes of a team: a power of two, eight channels each
  int tiles;   // of queries that share keys
  int pieces;  // of a query at most
  // [tokens, heads, pieces], of sums [head_dim].
  float* sums;
  PieceState* states;
  unsigned* tickets;  // [tokens, kv_heads * tiles] blocks that are done; zeros before and afterwards
};

// Eight values of a row as they are stored.
template <typename Value>
using Eight = std::conditional_t<sizeof(Value) == 2, uint4, uint2>;

// kWide: rows begin at multiples of an Eight and hold whole ones. Zeros behind the row.
template <typename Value, bool kWide>
__device__ __forceinline__ Eight<Value> LoadEight(const Value* row, int first, int count) {
  Eight<Value> values{};
  if constexpr (kWide) {
    if (first < count) values = *reinterpret_cast<const Eight<Value>*>(row + first);
  } else {
    Value each[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) each[i] = first + i < count ? row[first + i] : Value(0);
    memcpy(&values, each, sizeof values);
  }
  return values;
}
__device__ __forceinline__ void ToFloats(uint4 stored, float (&values)[8]) {
  const uint32_t words[4] = {stored.x, stored.y, stored.z, stored.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __half2float(__ushort_as_half(static_cast<unsigned short>(words[i] & 0xFFFF)));
    values[2 * i + 1] = __half2float(__ushort_as_half(static_cast<unsigned short>(words[i] >> 16)));
  }
}
__device__ __forceinline__ void ToFloats(uint2 stored, float (&values)[8]) {
  const uint32_t words[2] = {stored.x, stored.y};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    values[i] = static_cast<float>(static_cast<int8_t>(words[i / 4] >> 8 * (i % 4) & 0xFF));
}

// Blocks: x a key's head and a tile of kQueries of its queries, y pieces in turn, z tokens.
template <typename Value, bool kWide, int kQueries>
__global__ void __launch_bounds__(kFewThreads)
    AttendFew(const __grid_constant__ FewProblem few, const float* q, const Value* k, const float* k_scales,
              const Value* v, const float* v_scales, float* out, size_t out_stride) {
  __shared__ __align__(16) float sums[kFewWarps][kQueries][kMostChannels];
  __shared__ PieceState states[kFewWarps][kQueries];
  __shared__ bool is_last;
  LetNextBegin();
  WaitForWorkBefore();
  const Problem& p = few.of;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / kWarp, lane = thread % kWarp;
  const int group = p.heads / p.kv_heads;
  const int kv_head = static_cast<int>(blockIdx.x) / few.tiles,
            first_query = static_cast<int>(blockIdx.x) % few.tiles * kQueries;
  const int queries = min(kQueries, group - first_query), head = kv_head * group + first_query;
  const int t = static_cast<int>(blockIdx.z), splits = static_cast<int>(gridDim.y);
  const int position = *p.past + t, begin = p.FirstSeen(position);
  const int first_piece = begin / kPieceKeys, pieces = position / kPieceKeys + 1 - first_piece;
  if (static_cast<int>(blockIdx.y) >= pieces) return;

  const int team_lane = lane % few.team, channel = kChannels * team_lane;
  const int teams = kFewThreads / few.team, team = thread / few.team;
  const size_t base = kv_head * p.capacity;
  float query[kQueries][kChannels];
#pragma unroll
  for (int j = 0; j < kQueries; ++j) {
    const float* const row =
        q + (static_cast<size_t>(head + min(j, queries - 1)) * p.tokens + t) * p.head_dim;
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      query[j][c] = channel + c < p.head_dim ? row[channel + c] * p.factor : 0.0f;
  }

  for (int piece = static_cast<int>(blockIdx.y); piece < pieces; piece += splits) {
    const int first_key = (first_piece + piece) * kPieceKeys,
              last_key = min(first_key + kPieceKeys - 1, position);
    float sum[kQueries][kChannels], largest[kQueries], total[kQueries];
#pragma unroll
    for (int j = 0; j < kQueries; ++j) {
      largest[j] = -FLT_MAX;
      total[j] = 0.0f;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sum[j][c] = 0.0f;
    }
    // As often for all lanes, which sum their team's products together.
    for (int next = first_key; next <= last_key; next += teams * kKeysAhead) {
      Eight<Value> keys[kKeysAhead], values[kKeysAhead];
      float k_scale[kKeysAhead], v_scale[kKeysAhead];
      bool seen[kKeysAhead];
#pragma unroll
      for (int a = 0; a < kKeysAhead; ++a) {
        const int s = next + a * teams + team;
        seen[a] = s >= begin && s <= last_key;
        const size_t row = base + (seen[a] ? s : position);  // the token's own key is there
        keys[a] = LoadEight<Value, kWide>(k + row * p.head_dim, channel, p.head_dim);
        values[a] = LoadEight<Value, kWide>(v + row * p.head_dim, channel, p.head_dim);
        k_scale[a] = sizeof(Value) == 2 ? 1.0f : k_scales[row];
        v_scale[a] = sizeof(Value) == 2 ? 1.0f : v_scales[row];
      }
      float score[kQueries][kKeysAhead];
#pragma unroll
      for (int a = 0; a < kKeysAhead; ++a) {
        float key[kChannels];
        ToFloats(keys[a], key);
#pragma unroll
        for (int j = 0; j < kQueries; ++j) {
          score[j][a] = 0.0f;
#pragma unroll
          for (int c = 0; c < kChannels; ++c) score[j][a] = fmaf(query[j][c], key[c], score[j][a]);
        }
      }
      for (int d = 1; d < few.team; d *= 2) {
#pragma unroll
        for (int j = 0; j < kQueries; ++j) {
#pragma unroll
          for (int a = 0; a < kKeysAhead; ++a) score[j][a] += __shfl_xor_sync(kAllLanes, score[j][a], d);
        }
      }
#pragma unroll
      for (int j = 0; j < kQueries; ++j) {
        float most = largest[j];
#pragma unroll
        for (int a = 0; a < kKeysAhead; ++a) {
          score[j][a] *= k_scale[a];
          if (p.soft_cap > 0.0f) score[j][a] = p.soft_cap * tanhf(score[j][a] / p.soft_cap);
          if (seen[a]) most = fmaxf(most, score[j][a]);
        }
        const float rescale = __expf(largest[j] - most);
        largest[j] = most;
        total[j] *= rescale;
#pragma unroll
        for (int c = 0; c < kChannels; ++c) sum[j][c] *= rescale;
#pragma unroll
        for (int a = 0; a < kKeysAhead; ++a) {
          const float weight = seen[a] ? __expf(score[j][a] - most) : 0.0f;
          total[j] += weight;
          score[j][a] = weight * v_scale[a];
        }
      }
#pragma unroll
      for (int a = 0; a < kKeysAhead; ++a) {
        float value[kChannels];
        ToFloats(values[a], value);
#pragma unroll
        for (int j = 0; j < kQueries; ++j) {
#pragma unroll
          for (int c = 0; c < kChannels; ++c) sum[j][c] = fmaf(score[j][a], value[c], sum[j][c]);
        }
      }
    }
    // The teams of a warp; the lanes of the first one go on.
    for (int d = few.team; d < kWarp; d *= 2) {
#pragma unroll
      for (int j = 0; j < kQueries; ++j) {
        const float other = __shfl_xor_sync(kAllLanes, largest[j], d), most = fmaxf(largest[j], other);
        const float own_share = __expf(largest[j] - most), other_share = __expf(other - most);
        largest[j] = most;
        total[j] = total[j] * own_share + __shfl_xor_sync(kAllLanes, total[j], d) * other_share;
#pragma unroll
        for (int c = 0; c < kChannels; ++c)
          sum[j][c] = sum[j][c] * own_share + __shfl_xor_sync(kAllLanes, sum[j][c], d) * other_share;
      }
    }
    if (lane < few.team) {
#pragma unroll
      for (int j = 0; j < kQueries; ++j) {
        float4* const to = reinterpret_cast<float4*>(&sums[warp][j][channel]);
        to[0] = make_float4(sum[j][0], sum[j][1], sum[j][2], sum[j][3]);
        to[1] = make_float4(sum[j][4], sum[j][5], sum[j][6], sum[j][7]);
        if (lane == 0) states[warp][j] = {largest[j], total[j]};
      }
    }
    __syncthreads();
    for (int i = thread; i < queries * p.head_dim; i += kFewThreads) {
      const int j = i / p.head_dim, c = i % p.head_dim;
      float most = -FLT_MAX, value = 0.0f, all = 0.0f;
      for (int w = 0; w < kFewWarps; ++w) most = fmaxf(most, states[w][j].largest);
      for (int w = 0; w < kFewWarps; ++w) {
        const float share = __expf(states[w][j].largest - most);
        value += sums[w][j][c] * share;
        all += states[w][j].total * share;
      }
      if (pieces == 1) {
        out[t * out_stride + static_cast<size_t>(head + j) * p.head_dim + c] = value / all;
        continue;
      }
      const size_t at = (static_cast<size_t>(t) * p.heads + head + j) * few.pieces + piece;
      few.sums[at * p.head_dim + c] = value;
      if (c == 0) few.states[at] = {most, all};
    }
    __syncthreads();  // before the next piece's sums
  }
  if (pieces == 1) return;

  // The block that is done last joins the pieces.
  __threadfence();
  __syncthreads();
  unsigned* const ticket = few.tickets + blockIdx.z * gridDim.x + blockIdx.x;
  if (thread == 0) is_last = atomicAdd(ticket, 1u) + 1 == static_cast<unsigned>(min(splits, pieces));
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  if (thread == 0) *ticket = 0;
  for (int j = 0; j < queries; ++j) {
    const size_t at = (static_cast<size_t>(t) * p.heads + head + j) * few.pieces;
    const float2* const of_pieces = reinterpret_cast<const float2*>(few.states + at);
    float most = -FLT_MAX, all = 0.0f;
    for (int piece = lane; piece < pieces; piece += kWarp) most = fmaxf(most, __ldcg(of_pieces + piece).x);
    most = WarpMax(most);
    for (int piece = lane; piece < pieces; piece += kWarp) {
      const float2 state = __ldcg(of_pieces + piece);
      all += state.y * __expf(state.x - most);
    }
    all = WarpSum(all);
    float value[kChannels] = {};
#pragma unroll 4
    for (int piece = warp; piece < pieces; piece += kFewWarps) {
      const float share = __expf(__ldcg(of_pieces + piece).x - most);
      const float* const row = few.sums + (at + piece) * p.head_dim;
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const int i = c * kWarp + lane;
        if (i < p.head_dim) value[c] = fmaf(share, __ldcg(row + i), value[c]);
      }
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) sums[warp][0][c * kWarp + lane] = value[c];
    __syncthreads();
    for (int i = thread; i < p.head_dim; i += kFewThreads) {
      float joined = 0.0f;
      for (int w = 0; w < kFewWarps; ++w) joined += sums[w][0][i];
      out[t * out_stride + static_cast<size_t>(head + j) * p.head_dim + i] = joined / all;
    }
    __syncthreads();
  }
}

template <typename Value, bool kWide, int kQueries>
void StartFew(FewProblem few, const CachedQueries& in, const CachedKeys& cache, Tensor out) {
  const Problem& p = few.of;
  const Device device = out.device;
  few.tiles = (p.heads / p.kv_heads + kQueries - 1) / kQueries;
  const auto blocks = static_cast<unsigned>(p.kv_heads * few.tiles), tokens = static_cast<unsigned>(p.tokens);
  const size_t of_pieces = size_t{tokens} * p.heads * few.pieces;
  const size_t sum_bytes = (of_pieces * p.head_dim * sizeof(float) + 255) / 256 * 256;
  auto* const memory = static_cast<std::byte*>(
      ThreadMemory(device, Use::kAttentionParts, sum_bytes + of_pieces * sizeof(PieceState)));
  few.sums = reinterpret_cast<float*>(memory);
  few.states = reinterpret_cast<PieceState*>(memory + sum_bytes);
  few.tickets = static_cast<unsigned*>(
      ThreadMemory(device, Use::kAttentionTickets, size_t{tokens} * blocks * sizeof(unsigned)));
  int multiprocessors = 0;
  CheckCuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device.index()),
            "asking for its size");
  // How many blocks share the pieces changes nothing but the time.
  const unsigned splits =
      std::min(static_cast<unsigned>(few.pieces),
               Blocks(static_cast<size_t>(kFewBlocks * multiprocessors), blocks * tokens));
  LaunchBehind(device, AttendFew<Value, kWide, kQueries>, dim3(blocks, splits, tokens), kFewThreads, 0, few,
               In<float>(in.q).data, reinterpret_cast<const Value*>(cache.k.data),
               reinterpret_cast<const float*>(cache.k_scales.data),
               reinterpret_cast<const Value*>(cache.v.data),
               reinterpret_cast<const float*>(cache.v_scales.data), Out<float>(out).data, out.stride);
}

template <typename Value>
void AttendFewOf(const Problem& p, const CachedQueries& in, const CachedKeys& cache, Tensor out) {
  FewProblem few{};
  few.of = p;
  few.team = static_cast<int>(std::bit_ceil(Blocks(static_cast<size_t>(p.head_dim), kChannels)));
  // Keys that a token sees, where the first may stand at the end of a piece.
  const size_t most = p.sliding == 0 ? cache.capacity : std::min(cache.capacity, in.sliding + kPieceKeys);
  few.pieces = static_cast<int>(Blocks(most, kPieceKeys)) + (p.sliding == 0 ? 0 : 1);
  const int group = p.heads / p.kv_heads;
  if (p.head_dim % 8 != 0) return StartFew<Value, false, 1>(few, in, cache, out);
  if (group == 1) return StartFew<Value, true, 1>(few, in, cache, out);
  if (group == 2) return StartFew<Value, true, 2>(few, in, cache, out);
  StartFew<Value, true, 4>(few, in, cache, out);
}

}  // namespace

void SetPast(size_t tokens, Tensor past) {
  Launch(past.device, StorePast, 1, 1, 0, static_cast<int32_t>(tokens),
         reinterpret_cast<int32_t*>(past.data));
}

void CacheHeads(const NewHeads& in, ConstTensor past, Tensor q, const CachedKeys& cache) {
  const size_t head_dim = q.cols, heads = in.q.cols / head_dim, kv_heads = cache.k.rows / cache.capacity;
  const HeadsProblem problem = {In<float>(in.q),
                                In<float>(in.k),
                                In<float>(in.v),
                                TurnsOf(in.query_rope, 1),
                                TurnsOf(in.key_rope, 1),
                                PastIn(past),
                                Out<float>(q).data,
                                RowsOf(cache.k, cache.k_scales),
                                RowsOf(cache.v, cache.v_scales),
                                cache.capacity,
                                static_cast<int>(heads),
                                static_cast<int>(kv_heads),
                                static_cast<int>(head_dim)};
  MICA_CHECK(q.stride == head_dim);
  LaunchBehind(q.device, PlaceHeads, Blocks((heads + 2 * kv_heads) * in.q.rows, kHeadWarps),
               kHeadWarps * kWarp, 0, problem);
}

void CachedAttention(const CachedAttentionShape& shape, const CachedQueries& in, const CachedKeys& cache,
                     Tensor out) {
  if (shape.head_dim > size_t{kMostChannels})
    Fail("heads of {} channels: text is generated on a GPU with up to {}; use --device cpu", shape.head_dim,
         kMostChannels);
  const Problem problem = {PastIn(in.past),
                           static_cast<int>(shape.tokens),
                           static_cast<int>(shape.heads),
                           static_cast<int>(shape.kv_heads),
                           static_cast<int>(shape.head_dim),
                           static_cast<int>(in.sliding),
                           cache.capacity,
                           in.factor,
                           in.soft_cap};
  MICA_CHECK(in.q.stride == shape.head_dim && cache.k.stride == shape.head_dim &&
             cache.v.stride == shape.head_dim);
  if (shape.tokens == 0) return;
  if (shape.tokens <= kFewQueries) {
    return cache.k.dtype == DType::kF16 ? AttendFewOf<__half>(problem, in, cache, out)
                                        : AttendFewOf<int8_t>(problem, in, cache, out);
  }
  Launch(out.device, Attend, dim3(static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.tokens)),
         kThreads, 0, problem, In<float>(in.q).data, RowsOf(cache.k, cache.k_scales),
         RowsOf(cache.v, cache.v_scales), Out<float>(out).data, out.stride);
}

}  // namespace mica::cuda
