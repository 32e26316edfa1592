#include "model/rope.h"

#include <cmath>
#include <numbers>

namespace mica {

std::vector<double> RopeFrequencies(const ModelConfig& config) {
  std::vector<double> frequencies(config.head_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double& frequency = frequencies[i];
    frequency =
        std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim));
    switch (config.rope_scaling) {
      case RopeScaling::kNone:
        break;
      case RopeScaling::kLinear:
        frequency /= config.rope_factor;
        break;
      case RopeScaling::kLlama3: {
        const double turns =
            config.rope_original_positions * frequency / (2.0 * std::numbers::pi);  // in the original context
        const double low = config.rope_low_frequency, high = config.rope_high_frequency;
        if (turns < low) {
          frequency /= config.rope_factor;
        } else if (turns <= high) {
          const double blend = (turns - low) / (high - low);
          frequency *= blend + (1.0 - blend) / config.rope_factor;
        }
        break;
      }
    }
  }
  return frequencies;
}

}  // namespace mica
