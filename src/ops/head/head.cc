#include "ops/head/head.h"

#include <algorithm>

#include "base/error.h"
#include "device/scratch.h"
#include "ops/cuda_ops.h"
#include "ops/head/tiles.h"
#include "ops/tile/dispatch.h"
#include "ops/tile/for_rows.h"
#include "ops/tile/kernels.h"

namespace mica {

void AddScores(const HeadInputs& in, const HeadSlice& slice, std::span<const int32_t> targets,
               HeadScores& scores) {
  MICA_CHECK(in.x.cols == slice.rows.inputs());
  MICA_CHECK(in.norm.cols == in.x.cols);
  MICA_CHECK(targets.size() == in.x.rows);
  MICA_CHECK(scores.sums.size() == in.x.rows);
  if (in.x.device.is_cuda()) return Cuda().AddScores(in, slice, targets, scores);
  const auto wanted = [&](size_t first, size_t tokens) {
    const auto of_tile = targets.subspan(first, tokens);
    return std::any_of(of_tile.begin(), of_tile.end(), [](int32_t target) { return target >= 0; });
  };
  DispatchOperand(slice.rows.operands(), [&](auto type) {
    using T = decltype(type);
    ForNormedTiles<T>(in, wanted, [&](size_t first, MatrixView<const T> normed) {
      for (size_t block = 0; block < slice.rows.blocks(); ++block) {
        const size_t count = slice.rows.block_outputs(block);
        const size_t first_id = slice.first_id + slice.rows.block_first(block);
        float* logits = Scratch<float, 31>(normed.rows * count);
        slice.rows.MultiplyTile(normed, block, logits);
        if (in.cap > 0) Kernels(Backend::kCpu).soft_cap(in.cap, normed.rows * count, logits);
        for (size_t t = first; t < first + normed.rows; ++t, logits += count) {
          if (targets[t] < 0) continue;
          Kernels(Backend::kCpu).log_sum_step(logits, count, &scores.sums[t]);
          const size_t target = static_cast<size_t>(targets[t]);
          if (target >= first_id && target < first_id + count) {
            scores.target_logits[t] = logits[target - first_id];
          }
        }
      }
    });
  });
}

void CapLogits(float cap, Tensor logits) {
  MICA_CHECK(cap > 0);
  if (logits.device.is_cuda()) return Cuda().CapLogits(cap, logits);
  const MatrixView<float> rows = logits.host<float>();
  ForRows(rows.rows, [&](size_t t) { Kernels(Backend::kCpu).soft_cap(cap, rows.cols, rows.row(t)); });
}

}  // namespace mica
