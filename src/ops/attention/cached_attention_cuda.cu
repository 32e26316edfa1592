// A block of threads is a query: its warps take keys in turn, each with a softmax of its own, and join at the
// end in a fixed order.
#include <cfloat>

#include "device/cuda_kernel.h"
#include "ops/cuda_ops.h"

namespace mica::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
// Channels of a head that a lane holds at most: heads of up to 256.
constexpr int kChannels = 8;
constexpr float kLargestF16 = 65504.0f;

// Rows of a cache on the device: F16, or I8 with a scale each.
struct CacheRows {
  const __half* halves;
  const int8_t* bytes;
  const float* scales;
  __device__ float Scale(size_t row) const { return halves != nullptr ? 1.0f : scales[row]; }
  __device__ float Value(size_t at) const {
    return halves != nullptr ? __half2float(halves[at]) : static_cast<float>(bytes[at]);
  }
};
CacheRows RowsOf(const Tensor& rows, const Tensor& scales) {
  const bool halves = rows.dtype == DType::kF16;
  return {halves ? reinterpret_cast<const __half*>(rows.data) : nullptr,
          halves ? nullptr : reinterpret_cast<const int8_t*>(rows.data),
          halves ? nullptr : reinterpret_cast<const float*>(scales.data)};
}

// A warp is a row of keys or values.
__global__ void __launch_bounds__(kThreads)
    Append(const float* from, size_t rows, size_t tokens, size_t past, size_t capacity, int head_dim,
           __half* halves, int8_t* bytes, float* scales) {
  const size_t row = blockIdx.x * size_t{kWarps} + threadIdx.x / kWarp;
  if (row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const size_t to = row / tokens * capacity + past + row % tokens;
  const float* values = from + row * head_dim;
  if (halves != nullptr) {
    for (int i = lane; i < head_dim; i += kWarp)
      halves[to * head_dim + i] = __float2half_rn(fminf(fmaxf(values[i], -kLargestF16), kLargestF16));
    return;
  }
  float largest = 0.0f;
  for (int i = lane; i < head_dim; i += kWarp) largest = fmaxf(largest, fabsf(values[i]));
  for (int step = kWarp / 2; step > 0; step /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, step));
  const float inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
  for (int i = lane; i < head_dim; i += kWarp)
    bytes[to * head_dim + i] = static_cast<int8_t>(rintf(values[i] * inverse));
  if (lane == 0) scales[to] = largest / 127.0f;
}

struct Problem {
  int tokens, past, heads, kv_heads, head_dim, sliding;
  size_t capacity;
  float factor, soft_cap;
};

__global__ void __launch_bounds__(kThreads)
    Attend(Problem p, const float* q, CacheRows k, CacheRows v, float* out, size_t out_stride) {
  __shared__ float maxima[kWarps], totals[kWarps];
  __shared__ float partial[kWarps][kChannels * kWarp];
  const int head = static_cast<int>(blockIdx.x), t = static_cast<int>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const size_t base = head / (p.heads / p.kv_heads) * p.capacity;
  const int position = p.past + t;
  const int begin = p.sliding == 0 || position < p.sliding ? 0 : position + 1 - p.sliding;
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

void AppendTo(ConstTensor from, size_t past, size_t capacity, size_t kv_heads, const Tensor& rows,
              const Tensor& scales) {
  const bool halves = rows.dtype == DType::kF16;
  Launch(from.device, Append, Blocks(from.rows, kWarps), kThreads, 0, In<float>(from).data, from.rows,
         from.rows / kv_heads, past, capacity, static_cast<int>(from.cols),
         halves ? reinterpret_cast<__half*>(rows.data) : nullptr,
         halves ? nullptr : reinterpret_cast<int8_t*>(rows.data),
         halves ? nullptr : reinterpret_cast<float*>(scales.data));
}

}  // namespace

void AppendKeys(ConstTensor k, ConstTensor v, size_t past, const CachedKeys& cache) {
  const size_t kv_heads = cache.k.rows / cache.capacity;
  AppendTo(k, past, cache.capacity, kv_heads, cache.k, cache.k_scales);
  AppendTo(v, past, cache.capacity, kv_heads, cache.v, cache.v_scales);
}

void CachedAttention(const CachedAttentionShape& shape, const CachedQueries& in, const CachedKeys& cache,
                     Tensor out) {
  if (shape.head_dim > size_t{kChannels} * kWarp)
    Fail("heads of {} channels: text is generated on a GPU with up to {}; use --device cpu", shape.head_dim,
         kChannels * kWarp);
  const Problem problem = {static_cast<int>(shape.tokens),   static_cast<int>(shape.past),
                           static_cast<int>(shape.heads),    static_cast<int>(shape.kv_heads),
                           static_cast<int>(shape.head_dim), static_cast<int>(in.sliding),
                           cache.capacity,                   in.factor,
                           in.soft_cap};
  Launch(out.device, Attend, dim3(static_cast<unsigned>(shape.heads), static_cast<unsigned>(shape.tokens)),
         kThreads, 0, problem, In<float>(in.q).data, RowsOf(cache.k, cache.k_scales),
         RowsOf(cache.v, cache.v_scales), Out<float>(out).data, out.stride);
}

}  // namespace mica::cuda
