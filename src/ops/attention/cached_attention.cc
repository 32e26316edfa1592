#include "ops/attention/cached_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "ops/cuda_ops.h"
#include "ops/rope/turn.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

constexpr float kLargestF16 = 65504.0f;
// Queries and keys of a block: the keys and values of a block in FP32, 128 channels each, are 128 KiB.
constexpr size_t kQueries = 64, kKeys = 128;

void CheckCache(const CachedKeys& cache, size_t kv_heads, size_t head_dim) {
  MICA_CHECK(cache.k.rows == kv_heads * cache.capacity && cache.k.cols == head_dim);
  MICA_CHECK(cache.v.rows == cache.k.rows && cache.v.cols == head_dim && cache.v.dtype == cache.k.dtype);
  MICA_CHECK(cache.k.dtype == DType::kF16 || cache.k.dtype == DType::kI8);
  MICA_CHECK((cache.k.dtype == DType::kI8) == !cache.k_scales.empty());
  MICA_CHECK((cache.k.dtype == DType::kI8) == !cache.v_scales.empty());
}

// One row of a cache's keys or values.
void StoreRow(const float* values, size_t n, const Tensor& rows, const Tensor& scales, size_t row) {
  if (rows.dtype == DType::kF16) {
    F16* to = rows.host<F16>().row(row);
    for (size_t i = 0; i < n; ++i) to[i] = ToF16(std::clamp(values[i], -kLargestF16, kLargestF16));
    return;
  }
  float largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(values[i]));
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  auto* to = reinterpret_cast<int8_t*>(rows.data) + row * rows.stride;
  for (size_t i = 0; i < n; ++i) to[i] = static_cast<int8_t>(std::nearbyint(values[i] * inverse));
  scales.host<float>()(row, 0) = largest / 127.0f;
}

// Rows [first, first + count) as FP32, dense.
void LoadRows(const Tensor& rows, const Tensor& scales, size_t first, size_t count, float* out) {
  const size_t n = rows.cols;
  if (rows.dtype == DType::kF16) {
    for (size_t r = 0; r < count; ++r)
      Kernels(Backend::kCpu).f16.to_f32(rows.host<F16>().row(first + r), n, out + r * n);
    return;
  }
  for (size_t r = 0; r < count; ++r) {
    const auto* from = reinterpret_cast<const int8_t*>(rows.data) + (first + r) * rows.stride;
    const float scale = scales.host<float>()(first + r, 0);
    for (size_t i = 0; i < n; ++i) out[r * n + i] = scale * static_cast<float>(from[i]);
  }
}

void CheckPast(const ConstTensor& past, const CachedKeys& cache) {
  MICA_CHECK(past.rows == 1 && past.cols == 1 && past.dtype == DType::kI32);
  MICA_CHECK(past.device == cache.k.device);
}
// Of the processor: what `past` says, behind which there is room for the tokens.
size_t PastOf(const ConstTensor& past, size_t tokens, const CachedKeys& cache) {
  const int32_t value = *reinterpret_cast<const int32_t*>(past.data);
  MICA_CHECK(value >= 0 && static_cast<size_t>(value) + tokens <= cache.capacity);
  return static_cast<size_t>(value);
}

// The first key that a token sees, both counted in the sequence.
size_t FirstSeen(size_t sliding, size_t position) {
  return sliding == 0 || position < sliding ? 0 : position + 1 - sliding;
}

void Check(const CachedAttentionShape& shape, const CachedQueries& in, const CachedKeys& cache,
           const Tensor& out) {
  CheckCache(cache, shape.kv_heads, shape.head_dim);
  CheckPast(in.past, cache);
  MICA_CHECK(shape.kv_heads > 0 && shape.heads % shape.kv_heads == 0);
  MICA_CHECK(shape.tokens <= cache.capacity);
  MICA_CHECK(in.q.rows == shape.heads * shape.tokens && in.q.cols == shape.head_dim);
  MICA_CHECK(in.factor > 0 && in.soft_cap >= 0);
  MICA_CHECK(out.rows == shape.tokens && out.cols == shape.heads * shape.head_dim);
}

}  // namespace

void SetPast(size_t tokens, Tensor past) {
  MICA_CHECK(past.rows == 1 && past.cols == 1 && past.dtype == DType::kI32);
  MICA_CHECK(tokens <= size_t{INT32_MAX});
  if (past.device.is_cuda()) return Cuda().SetPast(tokens, past);
  *reinterpret_cast<int32_t*>(past.data) = static_cast<int32_t>(tokens);
}

void CacheHeads(const NewHeads& in, ConstTensor past_tensor, Tensor q_tensor, const CachedKeys& cache) {
  const size_t tokens = in.q.rows, head_dim = q_tensor.cols, kv_heads = cache.k.rows / cache.capacity,
               heads = in.q.cols / head_dim;
  CheckCache(cache, kv_heads, head_dim);
  CheckPast(past_tensor, cache);
  MICA_CHECK(in.q.cols == heads * head_dim && q_tensor.rows == heads * tokens);
  for (const ConstTensor& rows : {in.k, in.v})
    MICA_CHECK(rows.rows == tokens && rows.cols == kv_heads * head_dim);
  for (const RopeTable* rope : {in.query_rope, in.key_rope})
    MICA_CHECK(rope == nullptr || (rope->positions() >= cache.capacity && rope->channels() <= head_dim));
  MICA_CHECK(tokens <= cache.capacity);
  if (q_tensor.device.is_cuda()) return Cuda().CacheHeads(in, past_tensor, q_tensor, cache);
  const size_t past = PastOf(past_tensor, tokens, cache);
  const MatrixView<const float> q = in.q.host<float>(), k = in.k.host<float>(), v = in.v.host<float>();
  const MatrixView<float> q_out = q_tensor.host<float>();
  const OperandKernels<float>& kernels = Kernels(Backend::kCpu).of<float>();
  // A piece of work is a head at some tokens: first the heads of queries, then those of keys and values.
  constexpr size_t kTokensEach = 64;
  const size_t parts = (tokens + kTokensEach - 1) / kTokensEach;
  ParallelFor((heads + kv_heads) * parts, [&](size_t index) {
    const size_t first = index % parts * kTokensEach, end = std::min(tokens, first + kTokensEach);
    size_t head = index / parts;
    if (head < heads) {
      for (size_t t = first; t < end; ++t)
        TurnHead<float>(kernels, q.row(t) + head * head_dim, in.query_rope, past + t, head_dim,
                        q_out.row(head * tokens + t));
      return;
    }
    head -= heads;
    float* turned = Scratch<float, 74>(head_dim);
    for (size_t t = first; t < end; ++t) {
      const size_t row = head * cache.capacity + past + t;
      TurnHead<float>(kernels, k.row(t) + head * head_dim, in.key_rope, past + t, head_dim, turned);
      StoreRow(turned, head_dim, cache.k, cache.k_scales, row);
      StoreRow(v.row(t) + head * head_dim, head_dim, cache.v, cache.v_scales, row);
    }
  });
}

void CachedAttention(const CachedAttentionShape& shape, const CachedQueries& in, const CachedKeys& cache,
                     Tensor out_tensor) {
  Check(shape, in, cache, out_tensor);
  if (in.q.device.is_cuda()) return Cuda().CachedAttention(shape, in, cache, out_tensor);
  const auto [tokens, heads, kv_heads, head_dim] = shape;
  const size_t past = PastOf(in.past, tokens, cache);
  const MatrixView<const float> q = in.q.host<float>();
  const MatrixView<float> out = out_tensor.host<float>();
  const KernelTable& kernels = Kernels(Backend::kCpu);
  // The queries that share keys are rows of one block: those of a group of heads at consecutive tokens.
  const size_t group = heads / kv_heads, block_tokens = std::max<size_t>(1, kQueries / group);
  const size_t blocks = (tokens + block_tokens - 1) / block_tokens;
  ParallelFor(
      blocks * kv_heads, [&, tokens = tokens, kv_heads = kv_heads, head_dim = head_dim](size_t index) {
        const size_t kv_head = index % kv_heads, first = (blocks - 1 - index / kv_heads) * block_tokens;
        const size_t count = std::min(block_tokens, tokens - first), rows = group * count;
        float* queries = Scratch<float, 70>(rows * head_dim);
        float* keys = Scratch<float, 71>(kKeys * head_dim);
        float* scores = Scratch<float, 72>(rows * kKeys);
        float* sums = Scratch<float, 73>(rows * head_dim);
        thread_local std::vector<RunningSum> states;
        states.assign(rows, {});
        for (size_t r = 0; r < rows; ++r) {
          const size_t head = kv_head * group + r / count, t = first + r % count;
          std::copy_n(q.row(head * tokens + t), head_dim, queries + r * head_dim);
        }
        const size_t begin = FirstSeen(in.sliding, past + first), end = past + first + count;
        for (size_t key = begin; key < end; key += kKeys) {
          const size_t here = std::min(kKeys, end - key);
          LoadRows(cache.k, cache.k_scales, kv_head * cache.capacity + key, here, keys);
          TileProduct(queries, keys, true, rows, here, head_dim, false, scores);
          for (size_t r = 0; r < rows; ++r) {
            const size_t position = past + first + r % count;
            const size_t visible = position < key ? 0 : std::min(here, position - key + 1);
            const size_t hidden = std::min(visible, std::max(key, FirstSeen(in.sliding, position)) - key);
            float* row = scores + r * here;
            std::fill(row, row + hidden, 0.0f);
            std::fill(row + visible, row + here, 0.0f);
            if (visible == hidden) continue;
            float factor = in.factor;
            if (in.soft_cap > 0) {
              kernels.scale(factor, visible - hidden, row + hidden);
              kernels.soft_cap(in.soft_cap, visible - hidden, row + hidden);
              factor = 1.0f;
            }
            const float rescale =
                kernels.f32.softmax_step(row + hidden, visible - hidden, factor, &states[r], row + hidden);
            if (key > begin && rescale != 1.0f) kernels.scale(rescale, head_dim, sums + r * head_dim);
          }
          LoadRows(cache.v, cache.v_scales, kv_head * cache.capacity + key, here, keys);
          TileProduct(scores, keys, false, rows, head_dim, here, key > begin, sums);
        }
        for (size_t r = 0; r < rows; ++r) {
          kernels.scale(1.0f / states[r].sum, head_dim, sums + r * head_dim);
          const size_t head = kv_head * group + r / count;
          std::copy_n(sums + r * head_dim, head_dim, out.row(first + r % count) + head * head_dim);
        }
      });
}

void CachedAttentionRef(const CachedAttentionShape& shape, const CachedQueries& in, const CachedKeys& cache,
                        Tensor out_tensor) {
  Check(shape, in, cache, out_tensor);
  const MatrixView<const float> q = in.q.host<float>();
  const MatrixView<float> out = out_tensor.host<float>();
  const size_t n = shape.head_dim, past = PastOf(in.past, shape.tokens, cache);
  std::vector<float> key(n);
  for (size_t head = 0; head < shape.heads; ++head) {
    const size_t base = head / (shape.heads / shape.kv_heads) * cache.capacity;
    for (size_t t = 0; t < shape.tokens; ++t) {
      const size_t position = past + t, begin = FirstSeen(in.sliding, position);
      std::vector<double> scores, sums(n, 0.0);
      double largest = -INFINITY, total = 0;
      for (size_t s = begin; s <= position; ++s) {
        LoadRows(cache.k, cache.k_scales, base + s, 1, key.data());
        double score = 0;
        for (size_t i = 0; i < n; ++i) score += double{q(head * shape.tokens + t, i)} * key[i];
        score *= in.factor;
        if (in.soft_cap > 0) score = in.soft_cap * std::tanh(score / in.soft_cap);
        scores.push_back(score);
        largest = std::max(largest, score);
      }
      for (size_t s = begin; s <= position; ++s) {
        const double p = std::exp(scores[s - begin] - largest);
        total += p;
        LoadRows(cache.v, cache.v_scales, base + s, 1, key.data());
        for (size_t i = 0; i < n; ++i) sums[i] += p * key[i];
      }
      for (size_t i = 0; i < n; ++i) out(t, head * n + i) = static_cast<float>(sums[i] / total);
    }
  }
}

}  // namespace mica
