#include "ops/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "base/threads.h"
#include "device/scratch.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

// Scores of one block are 128 x 512 FP32 = 256 KiB: with their probabilities they stay in a 1 MiB
// second-level cache. Blocks on the diagonal compute up to kQueries - 1 scores a row in vain, so fewer
// queries waste less and more queries use the packed keys longer.
constexpr size_t kQueries = 128;
constexpr size_t kKeys = 512;

float SoftmaxStep(const KernelTable& kernels, const float* scores, size_t n, float factor, RunningSum* state,
                  float* out) {
  return kernels.softmax_step_f32(scores, n, factor, state, out);
}
float SoftmaxStep(const KernelTable& kernels, const float* scores, size_t n, float factor, RunningSum* state,
                  BF16* out) {
  return kernels.softmax_step_bf16(scores, n, factor, state, out);
}

template <typename T>
void Attend(const AttentionShape& shape, const T* q, const T* k, const T* v, float factor, MatrixView<T> out,
            float* log_sums) {
  const auto [tokens, window, heads, kv_heads, head_dim] = shape;
  MICA_CHECK(window > 0 && tokens % window == 0 && kv_heads > 0 && heads % kv_heads == 0);
  const KernelTable& kernels = Kernels(Backend::kCpu);
  const size_t query_blocks = (window + kQueries - 1) / kQueries;
  const size_t windows = tokens / window;
  ParallelFor(windows * heads * query_blocks, [&](size_t index) {
    // The longest rows first, so that no thread is left with one at the end.
    const size_t query_block = query_blocks - 1 - index / (windows * heads);
    const size_t head = index % heads;
    const size_t window_start = index / heads % windows * window;
    const size_t kv_head = head / (heads / kv_heads);
    const size_t first_query = query_block * kQueries;
    const size_t queries = std::min(kQueries, window - first_query);
    const size_t keys = first_query + queries;  // visible to the last query
    const T* q_rows = q + (head * tokens + window_start + first_query) * head_dim;
    const T* k_rows = k + (kv_head * tokens + window_start) * head_dim;
    const T* v_rows = v + (kv_head * tokens + window_start) * head_dim;

    float* scores = Scratch<float, 20>(kQueries * kKeys);
    T* weights = Scratch<T, 21>(kQueries * kKeys);
    float* sums = Scratch<float, 22>(kQueries * head_dim);
    RunningSum states[kQueries];
    for (size_t first_key = 0; first_key < keys; first_key += kKeys) {
      const size_t count = std::min(kKeys, keys - first_key);
      TileProduct(q_rows, k_rows + first_key * head_dim, true, queries, count, head_dim, false, scores);
      for (size_t i = 0; i < queries; ++i) {
        // Keys of this block at or before the query; a row that sees none keeps its state.
        const size_t position = first_query + i;
        const size_t visible = position < first_key ? 0 : std::min(count, position - first_key + 1);
        T* row = weights + i * count;
        if (visible > 0) {
          const float rescale = SoftmaxStep(kernels, scores + i * count, visible, factor, &states[i], row);
          if (first_key > 0 && rescale != 1.0f) kernels.scale(rescale, head_dim, sums + i * head_dim);
        }
        std::fill(row + visible, row + count, T{});
      }
      TileProduct(weights, v_rows + first_key * head_dim, false, queries, head_dim, count, first_key > 0,
                  sums);
    }
    for (size_t i = 0; i < queries; ++i) {
      const size_t token = window_start + first_query + i;
      float* row = sums + i * head_dim;
      kernels.scale(1.0f / states[i].sum, head_dim, row);
      T* target = out.row(token) + head * head_dim;
      if constexpr (std::is_same_v<T, float>) {
        std::copy_n(row, head_dim, target);
      } else {
        kernels.f32_to_bf16(row, head_dim, target);
      }
      if (log_sums != nullptr) log_sums[head * tokens + token] = states[i].max + std::log(states[i].sum);
    }
  });
}

}  // namespace

void BlockedAttention(const AttentionShape& shape, const float* q, const float* k, const float* v,
                      float factor, MatrixView<float> out, float* log_sums) {
  Attend(shape, q, k, v, factor, out, log_sums);
}
void BlockedAttention(const AttentionShape& shape, const BF16* q, const BF16* k, const BF16* v, float factor,
                      MatrixView<BF16> out, float* log_sums) {
  Attend(shape, q, k, v, factor, out, log_sums);
}

}  // namespace mica
