#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/error.h"

namespace mica {
namespace {

// The pair, a real number, that turns `turns` times in the original context.
double PairOfTurns(const RopeConfig& rope, double turns) {
  return static_cast<double>(rope.channels) *
         std::log(rope.original_positions / (turns * 2.0 * std::numbers::pi)) / (2.0 * std::log(rope.theta));
}

// Of pair i, the share that is divided by yarn's factor.
double YarnShare(const RopeConfig& rope, size_t i) {
  double low = PairOfTurns(rope, rope.beta_fast), high = PairOfTurns(rope, rope.beta_slow);
  if (rope.whole_bounds) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.channels) - 1.0);
  if (high == low) high += 0.001;
  return std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
}

double Llama3Scaled(const RopeConfig& rope, double frequency) {
  const double turns = rope.original_positions * frequency / (2.0 * std::numbers::pi);  // in the original context
  const double low = rope.low_frequency, high = rope.high_frequency;
  if (turns < low) return frequency / rope.factor;
  if (turns > high) return frequency;
  const double blend = (turns - low) / (high - low);
  return frequency * (blend + (1.0 - blend) / rope.factor);
}

}  // namespace

double YarnAmplitude(double factor, double scale) {
  return factor <= 1.0 ? 1.0 : 0.1 * scale * std::log(factor) + 1.0;
}

bool DependsOnWindow(const RopeConfig& rope) {
  return rope.scaling == RopeScaling::kDynamic || rope.scaling == RopeScaling::kLongrope;
}

std::vector<double> RopeFrequencies(const RopeConfig& rope, size_t window) {
  const double channels = static_cast<double>(rope.channels);
  const bool beyond = static_cast<double>(window) > rope.original_positions;
  double theta = rope.theta;
  if (rope.scaling == RopeScaling::kDynamic && beyond) {
    const double longer = rope.factor * static_cast<double>(window) / rope.original_positions - (rope.factor - 1.0);
    theta *= std::pow(longer, channels / (channels - 2.0));
  }
  std::vector<double> frequencies(rope.channels / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double& frequency = frequencies[i];
    frequency = std::pow(theta, -2.0 * static_cast<double>(i) / channels);
    switch (rope.scaling) {
      case RopeScaling::kNone:
      case RopeScaling::kDynamic:
        break;
      case RopeScaling::kLinear:
        frequency /= rope.factor;
        break;
      case RopeScaling::kLlama3:
        frequency = Llama3Scaled(rope, frequency);
        break;
      case RopeScaling::kYarn: {
        const double share = YarnShare(rope, i);
        frequency = frequency / rope.factor * share + frequency * (1.0 - share);
        break;
      }
      case RopeScaling::kLongrope:
        frequency /= (beyond ? rope.long_factors : rope.short_factors)[i];
        break;
    }
  }
  return frequencies;
}

RopeTable MakeRopeTable(const ModelConfig& config, const RopeConfig& rope, Turned turned, size_t window,
                        Device device) {
  RopeTable::Amplitude amplitude;
  const double constant = rope.amplitude;
  if (turned == Turned::kQueries && config.query_slope != 0.0) {
    MICA_CHECK(rope.channels == config.head_dim);  // all channels grow
    amplitude = [constant, slope = config.query_slope, positions = config.query_positions](size_t position) {
      return constant * (1.0 + slope * std::log1p(std::floor(static_cast<double>(position) / positions)));
    };
  } else if (constant != 1.0) {
    amplitude = [constant](size_t) { return constant; };
  }
  return RopeTable(RopeFrequencies(rope, window), std::move(amplitude), device);
}

}  // namespace mica
