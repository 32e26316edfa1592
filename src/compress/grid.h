// The asymmetric uniform grid of one scale group of one row, w = (code - zero) * scale, at the precision that
// is stored.
#pragma once

#include <cstdint>
#include <span>

#include "base/half.h"

namespace mica {

struct Grid {
  F16 scale;
  uint8_t zero = 0;
};

// The grid of `bits` bits that minimises sum_i importance[i] * (w[i] - quantised(w[i]))^2 among shrunken
// ranges of [min(w, 0), max(w, 0)]; `keep` (or empty) marks weights that count. Scale is rounded to FP16
// before errors are measured. importance: >= 0, one a weight.
Grid FitGrid(std::span<const float> w, std::span<const float> importance, std::span<const uint8_t> keep,
             int bits);

inline uint16_t GridCode(float w, float scale, int zero, int max_code);
inline float GridValue(uint16_t code, float scale, int zero) {
  return static_cast<float>(static_cast<int>(code) - zero) * scale;
}

}  // namespace mica

#include <algorithm>
#include <cmath>

namespace mica {
inline uint16_t GridCode(float w, float scale, int zero, int max_code) {
  const float code = std::nearbyint(w / scale) + static_cast<float>(zero);
  return static_cast<uint16_t>(std::clamp(code, 0.0f, static_cast<float>(max_code)));
}
}  // namespace mica
