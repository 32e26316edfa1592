#include "model/running_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/system.h"
#include "ops/head/head.h"
#include "ops/linalg/arrange.h"
#include "ops/norm/norm.h"

namespace mica {

RunningModel::RunningModel(const ModelWeights& weights, Device device)
    : weights_(&weights), device_(device), norm_(CopyTo(device, weights.HeadNorm())) {
  const ModelConfig& config = weights.config();
  for (size_t layer = 0; layer < config.layers; ++layer) {
    ThrowIfInterrupted();
    layers_.push_back(DecoderLayer::Resident(weights, layer, device));
  }
  embedding_ = weights.ResidentEmbedding(device);
  if (!config.tied_head) own_head_ = weights.ResidentHead(device);
}

uint64_t RunningModel::weight_bytes() const {
  return bytes_per_token() + (own_head_.empty() ? 0 : embedding_.bytes());
}

uint64_t RunningModel::bytes_per_token() const {
  uint64_t bytes = own_head_.empty() ? embedding_.bytes() : own_head_.bytes();
  for (const DecoderLayer& layer : layers_) bytes += layer.weight_bytes();
  return bytes;
}

uint64_t RunningModel::weights_per_token() const {
  uint64_t of_layer = 0;
  for (const LinearKind kind : kLinearKinds) {
    const MatrixShape shape = LinearShape(config(), kind);
    of_layer += uint64_t{shape.rows} * shape.cols;
  }
  return layers_.size() * of_layer + uint64_t{config().vocab} * config().hidden;
}

void RunningModel::Pass(std::span<const int32_t> ids, KeyCache& cache, Array& x) const {
  CheckTokens(config(), ids);
  MICA_CHECK(!ids.empty() && cache.tokens() + ids.size() <= cache.capacity());
  x.Resize(ids.size(), config().hidden, DType::kF32, device_);
  embedding_.Rows(ids, x.view());
  if (config().embedding_factor != 1.0f)
    ScaleValues(config().embedding_factor, std::as_const(x).view(), x.view());
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    ThrowIfInterrupted();
    layers_[layer].Continue(x.view(), cache, layer);
  }
  cache.Advance(ids.size());
}

void RunningModel::Head(ConstTensor x, Tensor logits) const {
  thread_local Array normed;
  normed.Resize(x.rows, x.cols, DType::kF32, device_);
  RmsNorm(x, norm_.view(), config().norm_epsilon, normed.view());
  const ResidentProduct product = {own_head_.empty() ? &embedding_ : &own_head_, {}, logits};
  MultiplyResident(std::as_const(normed).view(), {&product, 1});
  if (config().logit_cap > 0) CapLogits(config().logit_cap, logits);
}

std::vector<float> RunningModel::Continue(std::span<const int32_t> ids, KeyCache& cache) const {
  const size_t before = cache.tokens();
  thread_local Array x, on_device;
  try {
    for (size_t first = 0; first < ids.size(); first += kPromptTokens)
      Pass(ids.subspan(first, std::min(kPromptTokens, ids.size() - first)), cache, x);
    on_device.Resize(1, config().vocab, DType::kF32, device_);
    Head(x.view().Rows(x.rows() - 1, 1), on_device.view());
    std::vector<float> logits(config().vocab);
    Copy(std::as_const(on_device).view(), MatrixView<float>(logits.data(), 1, logits.size()));
    for (const float logit : logits) {
      if (std::isnan(logit)) {
        Fail("the model's logits behind token {} of the text are not numbers; its weights or activations overflow",
             cache.tokens());
      }
    }
    return logits;
  } catch (...) {
    cache.Truncate(before);
    throw;
  }
}

Matrix<float> RunningModel::ContinueAll(std::span<const int32_t> ids, KeyCache& cache) const {
  const size_t before = cache.tokens();
  Matrix<float> logits(ids.size(), config().vocab);
  thread_local Array x, on_device;
  try {
    for (size_t first = 0; first < ids.size(); first += kPromptTokens) {
      const size_t count = std::min(kPromptTokens, ids.size() - first);
      Pass(ids.subspan(first, count), cache, x);
      on_device.Resize(count, config().vocab, DType::kF32, device_);
      Head(std::as_const(x).view(), on_device.view());
      Copy(std::as_const(on_device).view(), logits.view().Rows(first, count));
    }
  } catch (...) {
    cache.Truncate(before);
    throw;
  }
  return logits;
}

MemoryPlan PlanRunning(const ModelWeights& weights, size_t context, int cache_bits, Device device) {
  const ModelConfig& config = weights.config();
  const uint64_t widest = std::max({config.ffn * 3, config.q_width() * 4, config.vocab / kPromptTokens});
  MemoryPlan plan(device);
  plan.Add("weights", weights.PlannedResidentBytes(device));
  plan.Add("keys and values", KeyCache::Bytes(config, context, cache_bits));
  plan.Add("activations",
           sizeof(float) * std::min(context, kPromptTokens) * (3 * config.hidden + widest) + 4 * config.vocab);
  return plan;
}

}  // namespace mica
