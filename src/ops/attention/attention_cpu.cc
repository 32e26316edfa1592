#include "ops/attention/attention_cpu.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "device/scratch.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

// Scores of one block are 128 x 512 FP32 = 256 KiB: with their probabilities they stay in a 1 MiB
// second-level cache. Blocks on the diagonal compute up to kQueries - 1 scores a row in vain, so fewer
// queries waste less and more queries use the packed keys longer.
constexpr size_t kQueries = 128;
constexpr size_t kKeys = 512;

}  // namespace

template <typename T>
void AttentionCpu(const AttentionShape& shape, const AttentionInputs& in, Tensor out_tensor,
                  Tensor log_sums_tensor) {
  const size_t tokens = shape.tokens, window = shape.window, heads = shape.heads, kv_heads = shape.kv_heads,
               head_dim = shape.head_dim;
  const T *q = in.q.host<T>().data, *k = in.k.host<T>().data, *v = in.v.host<T>().data;
  const MatrixView<T> out = out_tensor.host<T>();
  const MatrixView<float> log_sums = log_sums_tensor.host<float>();
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
    const size_t begin = FirstKey(in, first_query) / kKeys * kKeys;
    for (size_t first_key = begin; first_key < keys; first_key += kKeys) {
      const size_t count = std::min(kKeys, keys - first_key);
      TileProduct(q_rows, k_rows + first_key * head_dim, true, queries, count, head_dim, false, scores);
      for (size_t i = 0; i < queries; ++i) {
        // Keys of this block that the query sees; a row that sees none keeps its state.
        const size_t position = first_query + i;
        const size_t visible = position < first_key ? 0 : std::min(count, position - first_key + 1);
        const size_t hidden = std::min(visible, std::max(first_key, FirstKey(in, position)) - first_key);
        T* row = weights + i * count;
        std::fill(row, row + hidden, T{});
        if (visible > hidden) {
          float* seen = scores + i * count + hidden;
          float factor = in.factor;
          if (in.soft_cap > 0) {
            for (size_t s = 0; s < visible - hidden; ++s)
              seen[s] = in.soft_cap * std::tanh(in.factor * seen[s] / in.soft_cap);
            factor = 1.0f;
          }
          const float rescale =
              kernels.of<T>().softmax_step(seen, visible - hidden, factor, &states[i], row + hidden);
          if (first_key > begin && rescale != 1.0f) kernels.scale(rescale, head_dim, sums + i * head_dim);
        }
        std::fill(row + visible, row + count, T{});
      }
      TileProduct(weights, v_rows + first_key * head_dim, false, queries, head_dim, count, first_key > begin,
                  sums);
    }
    for (size_t i = 0; i < queries; ++i) {
      const size_t token = window_start + first_query + i;
      float* row = sums + i * head_dim;
      kernels.scale(1.0f / states[i].sum, head_dim, row);
      kernels.of<T>().from_f32(row, head_dim, out.row(token) + head * head_dim);
      if (log_sums.data != nullptr) log_sums(head, token) = states[i].max + std::log(states[i].sum);
    }
  });
}

template void AttentionCpu<float>(const AttentionShape&, const AttentionInputs&, Tensor, Tensor);
template void AttentionCpu<BF16>(const AttentionShape&, const AttentionInputs&, Tensor, Tensor);

}  // namespace mica
