#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "base/threads.h"
#include "device/scratch.h"
#include "ops/attention/attention_cpu.h"
#include "ops/tile/for_rows.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

// As in the forward pass; the four blocks of scores together take 768 KiB.
constexpr size_t kQueries = 128;
constexpr size_t kKeys = 512;

}  // namespace

template <typename T>
void AttentionGradientCpu(const AttentionShape& shape, const AttentionInputs& in,
                          const AttentionFeedback& feedback, const AttentionGradients& out) {
  const size_t tokens = shape.tokens, window = shape.window, heads = shape.heads, kv_heads = shape.kv_heads,
               head_dim = shape.head_dim;
  const T *all_q = in.q.host<T>().data, *all_k = in.k.host<T>().data, *all_v = in.v.host<T>().data;
  const float* log_sums = feedback.log_sums.host<float>().data;
  float *grad_q = out.q.host<float>().data, *all_grad_k = out.k.host<float>().data,
        *all_grad_v = out.v.host<float>().data;
  const KernelTable& kernels = Kernels(Backend::kCpu);
  // grad_out head by head, as the products want it, and its product with out for each row.
  Matrix<T> all_grad_out(heads * tokens, head_dim);
  std::vector<float> means(heads * tokens);
  const MatrixView<const T> context = feedback.out.host<T>();
  const MatrixView<const float> context_gradient = feedback.grad_out.host<float>();
  ForRows(tokens, [&](size_t t) {
    float* wide = Scratch<float, 44>(head_dim);
    for (size_t head = 0; head < heads; ++head) {
      const float* values = context_gradient.row(t) + head * head_dim;
      kernels.of<T>().from_f32(values, head_dim, all_grad_out.row(head * tokens + t));
      kernels.of<T>().to_f32(context.row(t) + head * head_dim, head_dim, wide);
      means[head * tokens + t] = kernels.dot(values, wide, head_dim);
    }
  });
  const size_t group = heads / kv_heads;
  // An item owns all gradients of its keys and queries, so nothing is summed across threads.
  ParallelFor(tokens / window * kv_heads, [&](size_t index) {
    const size_t kv_head = index % kv_heads;
    const size_t window_start = index / kv_heads * window;
    const size_t kv_offset = (kv_head * tokens + window_start) * head_dim;
    std::fill_n(all_grad_k + kv_offset, window * head_dim, 0.0f);
    std::fill_n(all_grad_v + kv_offset, window * head_dim, 0.0f);
    float* p = Scratch<float, 40>(kQueries * kKeys);
    float* grad_p = Scratch<float, 41>(kQueries * kKeys);
    T* p_rounded = Scratch<T, 42>(kQueries * kKeys);
    T* grad_scores = Scratch<T, 43>(kQueries * kKeys);
    for (size_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (size_t first_query = 0; first_query < window; first_query += kQueries) {
        const size_t queries = std::min(kQueries, window - first_query);
        const size_t row = head * tokens + window_start + first_query;
        const T* q = all_q + row * head_dim;
        const T* grad_out = all_grad_out.row(row);
        const size_t keys = first_query + queries;
        const size_t begin = FirstKey(in, first_query) / kKeys * kKeys;
        for (size_t first_key = begin; first_key < keys; first_key += kKeys) {
          const size_t count = std::min(kKeys, keys - first_key);
          const T* k = all_k + kv_offset + first_key * head_dim;
          const T* v = all_v + kv_offset + first_key * head_dim;
          TileProduct(q, k, true, queries, count, head_dim, false, p);
          TileProduct(grad_out, v, true, queries, count, head_dim, false, grad_p);
          for (size_t i = 0; i < queries; ++i) {
            const size_t position = first_query + i;
            const size_t visible = position < first_key ? 0 : std::min(count, position - first_key + 1);
            const size_t hidden = std::min(visible, std::max(first_key, FirstKey(in, position)) - first_key);
            float *weights = p + i * count, *felt = grad_p + i * count;
            float factor = in.factor;
            if (in.soft_cap > 0) {
              for (size_t s = hidden; s < visible; ++s) {
                const float capped = std::tanh(in.factor * weights[s] / in.soft_cap);
                weights[s] = in.soft_cap * capped;
                felt[s] = means[row + i] + (felt[s] - means[row + i]) * (1.0f - capped * capped);
              }
              factor = 1.0f;
            }
            std::fill(weights, weights + hidden, 0.0f);
            kernels.exp(weights + hidden, visible - hidden, factor, log_sums[row + i], weights + hidden);
            std::fill(weights + visible, weights + count, 0.0f);
            kernels.of<T>().softmax_gradient(weights, felt, count, means[row + i], in.factor,
                                             grad_scores + i * count);
          }
          const T* weights = nullptr;
          if constexpr (std::is_same_v<T, float>) {
            weights = p;
          } else {
            kernels.of<T>().from_f32(p, queries * count, p_rounded);
            weights = p_rounded;
          }
          float* grad_k = all_grad_k + kv_offset + first_key * head_dim;
          float* grad_v = all_grad_v + kv_offset + first_key * head_dim;
          TileProductTransposedA(weights, grad_out, count, head_dim, queries, true, grad_v);
          TileProductTransposedA(grad_scores, q, count, head_dim, queries, true, grad_k);
          TileProduct(grad_scores, k, false, queries, head_dim, count, first_key > begin,
                      grad_q + row * head_dim);
        }
      }
    }
  });
}

template void AttentionGradientCpu<float>(const AttentionShape&, const AttentionInputs&,
                                          const AttentionFeedback&, const AttentionGradients&);
template void AttentionGradientCpu<BF16>(const AttentionShape&, const AttentionInputs&,
                                         const AttentionFeedback&, const AttentionGradients&);

}  // namespace mica
