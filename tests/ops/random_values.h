// Reproducible random numbers and NaN-filled outputs for the kernel tests.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "base/half.h"

namespace mica {

inline std::vector<float> RandomValues(size_t n, uint32_t seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

inline std::vector<BF16> Rounded(const std::vector<float>& values) {
  std::vector<BF16> rounded(values.size());
  for (size_t i = 0; i < values.size(); ++i) rounded[i] = ToBF16(values[i]);
  return rounded;
}

inline std::vector<float> Widened(const std::vector<BF16>& values) {
  std::vector<float> wide(values.size());
  for (size_t i = 0; i < values.size(); ++i) wide[i] = ToFloat(values[i]);
  return wide;
}

inline std::vector<float> NanFloats(size_t n) {
  return std::vector<float>(n, std::numeric_limits<float>::quiet_NaN());
}
inline std::vector<BF16> NanHalves(size_t n) { return std::vector<BF16>(n, BF16{0x7FC0}); }

// Largest |a - b| / (1 + |b|), or infinity when one is NaN.
inline double WorstError(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = a.size() == b.size() ? 0.0 : std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    const double error = std::fabs(double{a[i]} - b[i]) / (1.0 + std::fabs(b[i]));
    if (!(error <= worst)) worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
  }
  return worst;
}

}  // namespace mica
