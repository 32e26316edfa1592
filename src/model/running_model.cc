#include "model/running_model.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/system.h"
#include "device/recorded_work.h"
#include "model/token_pass.h"
#include "ops/head/head.h"
#include "ops/linalg/arrange.h"
#include "ops/packed_product/resident_weights.h"

namespace mica {
namespace {

// One that nothing in the process had before; addresses and the system's names of threads come again.
uint64_t NewNumber() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}
uint64_t ThisThread() {
  thread_local const uint64_t number = NewNumber();
  return number;
}

void Record(const std::function<void()>& work, TokenPass& pass) {
  try {
    pass.work = RecordedWork(pass.x.device(), work);
  } catch (const Interrupted&) {
    throw;
  } catch (const Error& error) {
    LogWarningOnce("text is generated more slowly than it could be: {}; a newer driver may help", error.what());
    pass.recordable = false;
  }
}

}  // namespace

RunningModel::RunningModel(const ModelWeights& weights, Device device)
    : weights_(&weights),
      device_(device),
      number_(NewNumber()),
      norm_(CopyTo(device, weights.HeadNorm())) {
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

uint64_t RunningModel::TablesFor(const KeyCache& cache) const {
  if (cache.capacity() != tables_capacity_) ++tables_;
  tables_capacity_ = cache.capacity();
  return tables_;
}

void RunningModel::Begin(std::span<const int32_t> ids, KeyCache& cache, Array& x) const {
  ThrowIfInterrupted();
  CheckTokens(config(), ids);
  MICA_CHECK(!ids.empty() && cache.tokens() + ids.size() <= cache.capacity());
  x.Resize(ids.size(), config().hidden, DType::kF32, device_);
  embedding_.Rows(ids, x.view());
  cache.WritePast();
}

void RunningModel::Layers(Tensor x, KeyCache& cache, PassMemory& memory) const {
  if (config().embedding_factor != 1.0f) ScaleValues(config().embedding_factor, x, x);
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    ThrowIfInterrupted();
    layers_[layer].Continue(x, cache, layer, memory);
  }
}

void RunningModel::Pass(std::span<const int32_t> ids, KeyCache& cache, Array& x) const {
  thread_local PassMemory memory;
  TablesFor(cache);
  Begin(ids, cache, x);
  Layers(x.view(), cache, memory);
  cache.Advance(ids.size());
}

ConstTensor RunningModel::PassToken(int32_t id, KeyCache& cache) const {
  TokenPass& pass = cache.token_pass();
  const TokenPass::Owner owner = {number_, ThisThread(), TablesFor(cache)};
  Begin({&id, 1}, cache, pass.x);
  pass.logits.Resize(1, config().vocab, DType::kF32, device_);
  const auto work = [&] {
    Layers(pass.x.view(), cache, pass.memory);
    Head(std::as_const(pass.x).view(), pass.logits.view());
  };
  if (pass.owner != owner) {
    // Not recorded: the first time takes memory, which recorded work must not.
    pass.work = RecordedWork();
    pass.recordable = true;
    work();
    pass.logits_here = Array::Pinned(1, config().vocab, DType::kF32);
    pass.owner = owner;
  } else {
    if (pass.work.empty() && pass.recordable) Record(work, pass);
    pass.recordable ? pass.work.Replay() : work();
  }
  cache.Advance(1);
  Copy(std::as_const(pass.logits).view(), pass.logits_here.view());
  return std::as_const(pass.logits_here).view();
}

void RunningModel::Head(ConstTensor x, Tensor logits) const {
  const ResidentProduct product = {own_head_.empty() ? &embedding_ : &own_head_, {}, logits};
  MultiplyResident(ProductInputs::Normed(x, norm_.view(), config().norm_epsilon), {&product, 1});
  if (config().logit_cap > 0) CapLogits(config().logit_cap, logits);
}

std::vector<float> RunningModel::Continue(std::span<const int32_t> ids, KeyCache& cache) const {
  const size_t before = cache.tokens();
  thread_local Array x, on_device;
  try {
    std::vector<float> logits(config().vocab);
    const MatrixView<float> row(logits.data(), 1, logits.size());
    if (device_.is_cuda() && ids.size() == 1) {
      Copy(PassToken(ids[0], cache), row);
    } else {
      for (size_t first = 0; first < ids.size(); first += kPromptTokens)
        Pass(ids.subspan(first, std::min(kPromptTokens, ids.size() - first)), cache, x);
      on_device.Resize(1, config().vocab, DType::kF32, device_);
      Head(std::as_const(x).view().Rows(x.rows() - 1, 1), on_device.view());
      Copy(std::as_const(on_device).view(), row);
    }
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
