#include <algorithm>
#include <type_traits>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"
#include "ops/attention/attention.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

// As in the forward pass; the four blocks of scores together take 768 KiB.
constexpr size_t kQueries = 128;
constexpr size_t kKeys = 512;

void SoftmaxGradient(const KernelTable& kernels, const float* p, const float* grad_p, size_t n, float mean,
                     float factor, float* out) {
  kernels.softmax_gradient_f32(p, grad_p, n, mean, factor, out);
}
void SoftmaxGradient(const KernelTable& kernels, const float* p, const float* grad_p, size_t n, float mean,
                     float factor, BF16* out) {
  kernels.softmax_gradient_bf16(p, grad_p, n, mean, factor, out);
}

template <typename T>
void Differentiate(const AttentionShape& shape, const AttentionGradientInputs<T>& in,
                   const AttentionGradients& out) {
  const auto [tokens, window, heads, kv_heads, head_dim] = shape;
  MICA_CHECK(window > 0 && tokens % window == 0 && kv_heads > 0 && heads % kv_heads == 0);
  const KernelTable& kernels = Kernels(Backend::kCpu);
  const size_t group = heads / kv_heads;
  // An item owns all gradients of its keys and queries, so nothing is summed across threads.
  ParallelFor(tokens / window * kv_heads, [&](size_t index) {
    const size_t kv_head = index % kv_heads;
    const size_t window_start = index / kv_heads * window;
    const size_t kv_offset = (kv_head * tokens + window_start) * head_dim;
    std::fill_n(out.k + kv_offset, window * head_dim, 0.0f);
    std::fill_n(out.v + kv_offset, window * head_dim, 0.0f);
    float* p = Scratch<float, 40>(kQueries * kKeys);
    float* grad_p = Scratch<float, 41>(kQueries * kKeys);
    T* p_rounded = Scratch<T, 42>(kQueries * kKeys);
    T* grad_scores = Scratch<T, 43>(kQueries * kKeys);
    for (size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (size_t first_query = 0; first_query < window; first_query += kQueries) {
        const size_t queries = std::min(kQueries, window - first_query);
        const size_t row = head * tokens + window_start + first_query;
        const T* q = in.q + row * head_dim;
        const T* grad_out = in.grad_out + row * head_dim;
        const size_t keys = first_query + queries;
        for (size_t first_key = 0; first_key < keys; first_key += kKeys) {
          const size_t count = std::min(kKeys, keys - first_key);
          const T* k = in.k + kv_offset + first_key * head_dim;
          const T* v = in.v + kv_offset + first_key * head_dim;
          TileProduct(q, k, true, queries, count, head_dim, false, p);
          TileProduct(grad_out, v, true, queries, count, head_dim, false, grad_p);
          for (size_t i = 0; i < queries; ++i) {
            const size_t position = first_query + i;
            const size_t visible = position < first_key ? 0 : std::min(count, position - first_key + 1);
            float* weights = p + i * count;
            kernels.exp_f32(weights, visible, in.factor, in.log_sums[row + i], weights);
            std::fill(weights + visible, weights + count, 0.0f);
            SoftmaxGradient(kernels, weights, grad_p + i * count, count, in.grad_means[row + i], in.factor,
                            grad_scores + i * count);
          }
          const T* weights = nullptr;
          if constexpr (std::is_same_v<T, float>) {
            weights = p;
          } else {
            kernels.f32_to_bf16(p, queries * count, p_rounded);
            weights = p_rounded;
          }
          float* grad_k = out.k + kv_offset + first_key * head_dim;
          float* grad_v = out.v + kv_offset + first_key * head_dim;
          TileProductTransposedA(weights, grad_out, count, head_dim, queries, true, grad_v);
          TileProductTransposedA(grad_scores, q, count, head_dim, queries, true, grad_k);
          TileProduct(grad_scores, k, false, queries, head_dim, count, first_key > 0, out.q + row * head_dim);
        }
      }
    }
  });
}

}  // namespace

void BlockedAttentionGradient(const AttentionShape& shape, const AttentionGradientInputs<float>& in,
                              const AttentionGradients& out) {
  Differentiate(shape, in, out);
}
void BlockedAttentionGradient(const AttentionShape& shape, const AttentionGradientInputs<BF16>& in,
                              const AttentionGradients& out) {
  Differentiate(shape, in, out);
}

}  // namespace mica
