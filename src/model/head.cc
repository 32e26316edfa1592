#include "ops/head/head.h"

#include <algorithm>

#include "base/error.h"
#include "base/system.h"
#include "device/array.h"
#include "device/cuda.h"
#include "device/precision.h"
#include "model/layer.h"
#include "ops/norm/norm.h"
#include "ops/product/product.h"

namespace mica {
namespace {

// A prepared head is kept up to this size, or this share of the memory there is: Vicuna-13B's in BF16 has
// 328 MB, Llama 3.1 70B's 2.1 GB. Otherwise its slices are read, decoded and prepared at every call.
constexpr size_t kKeptBytes = size_t{512} << 20;
constexpr size_t kKeptShare = 8;

}  // namespace

size_t KeptHeadBytes(const ModelConfig& config, Arithmetic arithmetic) {
  const size_t bytes =
      config.vocab * config.hidden * PreparedWeights::ValueBytes(arithmetic.operands(), arithmetic.device);
  const uint64_t available =
      arithmetic.device.is_cuda() ? MemoryOf(arithmetic.device).free_bytes : AvailableMemoryBytes();
  return bytes <= kKeptBytes || bytes <= available / kKeptShare ? bytes : 0;
}

OutputHead::OutputHead(const ModelWeights& weights, Arithmetic arithmetic)
    : weights_(&weights),
      arithmetic_(arithmetic),
      keeps_(KeptHeadBytes(weights.config(), arithmetic) > 0),
      norm_(CopyTo(arithmetic.device, weights.HeadNorm())) {}

size_t OutputHead::slices() const { return (weights_->config().vocab + kSliceRows - 1) / kSliceRows; }

void OutputHead::ForSlices(const std::function<void(size_t first, const PreparedWeights& rows)>& use) const {
  const size_t vocab = weights_->config().vocab;
  const DType operands = arithmetic_.operands();
  for (size_t slice = 0; slice < slices(); ++slice) {
    const size_t first = slice * kSliceRows;
    if (slice < kept_.size()) {
      use(first, kept_[slice]);
      continue;
    }
    const size_t count = std::min(kSliceRows, vocab - first);
    const bool on_gpu = arithmetic_.device.is_cuda();  // which takes weights as they are, once rounded
    Array stored = weights_->HeadOn(arithmetic_.device, first, count, on_gpu ? operands : DType::kF32);
    PreparedWeights rows =
        on_gpu ? PreparedWeights(std::move(stored)) : PreparedWeights(stored.view(), operands);
    use(first, rows);
    if (keeps_) kept_.push_back(std::move(rows));
  }
}

void OutputHead::NegativeLogLikelihood(ConstTensor x, std::span<const int32_t> targets,
                                       std::span<float> nll) const {
  const ModelConfig& config = weights_->config();
  MICA_CHECK(x.cols == config.hidden);
  MICA_CHECK(targets.size() == x.rows);
  MICA_CHECK(nll.size() == x.rows);
  for (const int32_t target : targets) MICA_CHECK(target < 0 || static_cast<size_t>(target) < config.vocab);
  HeadScores scores(x.rows);
  ForSlices([&](size_t first, const PreparedWeights& rows) {
    AddScores({x, norm(), config.norm_epsilon, config.logit_cap}, {rows, first}, targets, scores);
  });
  for (size_t t = 0; t < x.rows; ++t) nll[t] = targets[t] < 0 ? 0.0f : scores.NegativeLogLikelihood(t);
}

void OutputHead::Logits(ConstTensor x, Tensor logits) const {
  const ModelConfig& config = weights_->config();
  MICA_CHECK(x.cols == config.hidden);
  MICA_CHECK(logits.rows == x.rows);
  MICA_CHECK(logits.cols == config.vocab);
  Array normed(x.rows, x.cols, arithmetic_.operands(), arithmetic_.device);
  RmsNorm(x, norm(), config.norm_epsilon, normed.view());
  ForSlices([&](size_t first, const PreparedWeights& rows) {
    Multiply(normed.view(), rows, {}, logits.Cols(first, rows.outputs()));
  });
  if (config.logit_cap > 0) CapLogits(config.logit_cap, logits);
}

}  // namespace mica
