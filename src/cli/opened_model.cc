#include "cli/opened_model.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/system.h"
#include "base/units.h"
#include "device/cuda.h"
#include "generate/speed.h"

namespace mica {
namespace {

constexpr size_t kUsualContext = 4096;

}  // namespace

size_t ContextTokens(const Json& asked, const ModelConfig& config) {
  if (asked.is_null()) return std::min(kUsualContext, config.max_positions);
  const auto tokens = asked.get<size_t>();
  if (tokens > config.max_positions) {
    LogWarningOnce("--ctx is {}, but the model has learnt {} positions; texts beyond them may be nonsense", tokens,
                   config.max_positions);
  }
  return tokens;
}

OpenedModel::OpenedModel(const std::filesystem::path& path, const Json& context, int cache_bits, Device device)
    : weights_(std::make_unique<ModelWeights>(ModelWeights::Open(path))),
      device_(device),
      context_(ContextTokens(context, weights_->config())) {
  const MemoryPlan plan = PlanRunning(*weights_, context_, cache_bits, device);
  planned_bytes_ = plan.total();
  LogInfo("memory: {}", plan.Describe());
  plan.Check("running the model", "use a smaller --ctx, or --kv-bits 8");
}

void OpenedModel::Load() {
  ResetPeakResidentBytes();
  const double began = MonotonicSeconds();
  running_ = std::make_unique<RunningModel>(*weights_, device_);
  Synchronize(device_);
  load_seconds_ = MonotonicSeconds() - began;
  const uint64_t bytes = running_->weight_bytes();
  const double weights = static_cast<double>(running_->weights_per_token());
  LogInfo("loaded in {:.1f} s: {} of weights, {:.2f} bits each", load_seconds_,
          FormatBytes(static_cast<double>(bytes)),
          8.0 * static_cast<double>(running_->bytes_per_token()) / weights);
}

uint64_t OpenedModel::PeakBytes() const {
  return PeakBytesOn(device_);
}

}  // namespace mica
