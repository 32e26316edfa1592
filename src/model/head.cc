#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "device/activations.h"
#include "device/precision.h"
#include "device/scratch.h"
#include "model/layer.h"
#include "ops/tile/kernels.h"

namespace mica {
namespace {

// A prepared head up to this size is kept: Vicuna-13B's in BF16 has 328 MB.
constexpr size_t kKeptBytes = size_t{512} << 20;

void NormRow(const float* x, const std::vector<float>& weight, float epsilon, float* out) {
  Kernels(Backend::kCpu).rms_norm_f32(x, weight.data(), weight.size(), epsilon, out);
}
void NormRow(const float* x, const std::vector<float>& weight, float epsilon, BF16* out) {
  Kernels(Backend::kCpu).rms_norm_bf16(x, weight.data(), weight.size(), epsilon, out);
}

}  // namespace

OutputHead::OutputHead(const ModelWeights& weights, Precision precision)
    : weights_(&weights), precision_(precision), norm_(weights.FinalNorm()) {}

size_t OutputHead::slices() const { return (weights_->config().vocab + kSliceRows - 1) / kSliceRows; }

void OutputHead::ForSlices(const std::function<void(size_t first, const PreparedWeights& rows)>& use) const {
  const size_t vocab = weights_->config().vocab;
  const size_t value_bytes = precision_ == Precision::kBf16 && FastestPrecision() == Precision::kBf16 ? 2 : 4;
  const bool keep = vocab * weights_->config().hidden * value_bytes <= kKeptBytes;
  for (size_t slice = 0; slice < slices(); ++slice) {
    const size_t first = slice * kSliceRows;
    if (slice < kept_.size()) {
      use(first, kept_[slice]);
      continue;
    }
    PreparedWeights rows(weights_->Head(first, std::min(kSliceRows, vocab - first)), precision_);
    use(first, rows);
    if (keep) kept_.push_back(std::move(rows));
  }
}

template <typename T>
void OutputHead::Score(MatrixView<const float> x, std::span<const int32_t> targets,
                       std::span<float> nll) const {
  const ModelConfig& config = weights_->config();
  const KernelTable& kernels = Kernels(Backend::kCpu);
  std::vector<RunningSum> sums(x.rows);
  std::vector<float> target_logits(x.rows, 0.0f);
  const size_t tiles = (x.rows + kTileTokens - 1) / kTileTokens;
  ForSlices([&](size_t first_row, const PreparedWeights& rows) {
    ParallelFor(tiles, [&](size_t tile) {
      const size_t first = tile * kTileTokens;
      const size_t tokens = std::min(kTileTokens, x.rows - first);
      const auto tile_targets = targets.subspan(first, tokens);
      if (std::all_of(tile_targets.begin(), tile_targets.end(), [](int32_t target) { return target < 0; }))
        return;
      T* normed = Scratch<T, 30>(tokens * config.hidden);
      for (size_t t = 0; t < tokens; ++t) {
        NormRow(x.row(first + t), norm_, config.norm_epsilon, normed + t * config.hidden);
      }
      for (size_t block = 0; block < rows.blocks(); ++block) {
        const size_t count = rows.block_outputs(block);
        const size_t first_id = first_row + rows.block_first(block);
        float* logits = Scratch<float, 31>(tokens * count);
        rows.MultiplyTile(MatrixView<const T>(normed, tokens, config.hidden), block, logits);
        for (size_t t = 0; t < tokens; ++t) {
          if (tile_targets[t] < 0) continue;
          kernels.log_sum_step(logits + t * count, count, &sums[first + t]);
          const size_t target = static_cast<size_t>(tile_targets[t]);
          if (target >= first_id && target < first_id + count) {
            target_logits[first + t] = logits[t * count + target - first_id];
          }
        }
      }
    });
  });
  for (size_t t = 0; t < x.rows; ++t) {
    nll[t] = targets[t] < 0 ? 0.0f : sums[t].max - target_logits[t] + std::log(sums[t].sum);
  }
}

void OutputHead::NegativeLogLikelihood(MatrixView<const float> x, std::span<const int32_t> targets,
                                       std::span<float> nll) const {
  MICA_CHECK(x.cols == weights_->config().hidden && targets.size() == x.rows && nll.size() == x.rows);
  for (const int32_t target : targets)
    MICA_CHECK(target < 0 || static_cast<size_t>(target) < weights_->config().vocab);
  if (precision_ == Precision::kFp32) {
    Score<float>(x, targets, nll);
  } else {
    Score<BF16>(x, targets, nll);
  }
}

void OutputHead::Logits(MatrixView<const float> x, MatrixView<float> logits) const {
  const ModelConfig& config = weights_->config();
  MICA_CHECK(x.cols == config.hidden && logits.rows == x.rows && logits.cols == config.vocab);
  Activations normed(x.rows, x.cols, precision_);
  for (size_t t = 0; t < x.rows; ++t) {
    if (precision_ == Precision::kFp32) {
      NormRow(x.row(t), norm_, config.norm_epsilon, normed.fp32().row(t));
    } else {
      NormRow(x.row(t), norm_, config.norm_epsilon, normed.bf16().row(t));
    }
  }
  ForSlices([&](size_t first, const PreparedWeights& rows) {
    const MatrixView<float> out = logits.Cols(first, rows.outputs());
    if (precision_ == Precision::kFp32) {
      Multiply(normed.view().fp32, rows, nullptr, out);
    } else {
      Multiply(normed.view().bf16, rows, nullptr, out);
    }
  });
}

}  // namespace mica
