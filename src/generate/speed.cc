#include "generate/speed.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/system.h"
#include "device/cuda.h"
#include "model/key_cache.h"

namespace mica {
namespace {

Speed SpeedOf(const std::vector<double>& samples) {
  Speed speed;
  for (const double sample : samples) speed.mean += sample / static_cast<double>(samples.size());
  for (const double sample : samples)
    speed.deviation += (sample - speed.mean) * (sample - speed.mean);
  if (samples.size() > 1) speed.deviation = std::sqrt(speed.deviation / static_cast<double>(samples.size() - 1));
  return speed;
}

std::vector<int32_t> SomeTokens(const ModelConfig& config, size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % config.vocab);
  return ids;
}

template <typename Work>
Speed Repeat(size_t repetitions, size_t tokens, Device device, const Work& work) {
  std::vector<double> samples;
  for (size_t i = 0; i <= repetitions; ++i) {
    ThrowIfInterrupted();
    const double began = MonotonicSeconds();
    work();
    Synchronize(device);
    if (i > 0) samples.push_back(static_cast<double>(tokens) / (MonotonicSeconds() - began));
  }
  return SpeedOf(samples);
}

}  // namespace

size_t SpeedSettings::Context() const { return std::max<size_t>({2, prompt_tokens, generated_tokens}); }

RunningCost MeasureRunning(const ModelWeights& weights, const RunningModel& model,
                           const SpeedSettings& settings) {
  RunningCost cost;
  cost.weight_bytes = model.weight_bytes();
  cost.bytes_per_token = model.bytes_per_token();
  cost.bits = 8.0 * static_cast<double>(cost.bytes_per_token) / static_cast<double>(model.weights_per_token());
  for (const TensorView& tensor : weights.checkpoint().tensors()) cost.file_bytes += tensor.stored_bytes();
  const size_t context = settings.Context();
  KeyCache cache(model.config(), context, settings.cache_bits, model.device());
  const std::vector<int32_t> ids = SomeTokens(model.config(), context, settings.seed);
  if (settings.prompt_tokens > 0) {
    cost.prompt = Repeat(settings.repetitions, settings.prompt_tokens, model.device(), [&] {
      cache.Truncate(0);
      model.Continue(std::span(ids).first(settings.prompt_tokens), cache);
    });
  }
  if (settings.generated_tokens > 0) {
    cost.decode = Repeat(settings.repetitions, settings.generated_tokens, model.device(), [&] {
      cache.Truncate(0);
      for (size_t t = 0; t < settings.generated_tokens; ++t) {
        ThrowIfInterrupted();
        model.Continue(std::span(ids).subspan(t, 1), cache);
      }
    });
  }
  return cost;
}

uint64_t PeakBytesOn(Device device) {
  return device.is_cuda() ? MemoryOf(device).peak_bytes : PeakResidentBytes();
}

}  // namespace mica
