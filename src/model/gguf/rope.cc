#include "model/gguf/rope.h"

#include <algorithm>
#include <cmath>

#include "model/gguf/names.h"
#include "model/rope.h"

namespace mica {

std::vector<float> RopeFactors(const ModelConfig& config) {
  const RopeConfig& rope = config.ropes.front();
  if (rope.scaling != RopeScaling::kLlama3) return {};
  RopeConfig plain = rope;
  plain.scaling = RopeScaling::kNone;
  const std::vector<double> scaled = RopeFrequencies(rope, 0), unscaled = RopeFrequencies(plain, 0);
  std::vector<float> factors(scaled.size());
  for (size_t i = 0; i < factors.size(); ++i) factors[i] = static_cast<float>(unscaled[i] / scaled[i]);
  return factors;
}

std::vector<RopeFactorTensor> RopeFactorTensors(const ModelConfig& config) {
  std::vector<RopeFactorTensor> tensors;
  const auto add = [&](const char* name, std::vector<float> factors) {
    if (!factors.empty()) tensors.push_back({name, std::move(factors)});
  };
  const RopeConfig& rope = config.ropes.front();
  add(kRopeFactorsName, RopeFactors(config));
  add(kRopeFactorsLong, {rope.long_factors.begin(), rope.long_factors.end()});
  add(kRopeFactorsShort, {rope.short_factors.begin(), rope.short_factors.end()});
  return tensors;
}

bool FindRopeScaling(std::span<const float> factors, std::optional<double> original_positions,
                     ModelConfig* config) {
  constexpr double kClose = 1e-5;  // FP32 frequencies and factors of another program
  ModelConfig trial = *config;
  RopeConfig& rope = trial.ropes.front();
  rope.scaling = RopeScaling::kLlama3;
  rope.factor = *std::max_element(factors.begin(), factors.end());
  std::vector<double> positions = {8192};
  if (original_positions) positions.insert(positions.begin(), *original_positions);
  for (double power = 512; power <= 1 << 20; power *= 2) positions.push_back(power);
  for (const double original : positions) {
    for (const double high : {4.0, 2.0, 8.0, 16.0, 32.0}) {
      rope.original_positions = original;
      rope.low_frequency = 1.0;
      rope.high_frequency = high;
      const std::vector<float> given = RopeFactors(trial);
      const bool same = std::equal(given.begin(), given.end(), factors.begin(), factors.end(),
                                   [&](float a, float b) { return std::abs(a - b) <= kClose * std::abs(a); });
      if (!same) continue;
      *config = std::move(trial);
      return true;
    }
  }
  return false;
}

}  // namespace mica
