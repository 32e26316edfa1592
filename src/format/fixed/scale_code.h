// Eight-bit floating-point numbers for scales: four bits of exponent, four of mantissa, no sign, no infinity.
// A matrix brings its own power of two, so what they need is precision within its range.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace mica {

inline constexpr int kScaleBits = 8;

// bits 2^-18 below 16; (16 + m) 2^(e - 19) from there on, e = bits / 16, m = bits % 16: up to 31 / 16.
struct ScaleCode {
  uint8_t bits = 0;
};
static_assert(8 * sizeof(ScaleCode) == kScaleBits);

inline float ToFloat(ScaleCode code) {
  if (code.bits < 16) return static_cast<float>(code.bits) * 0x1p-18f;
  // Exponent and mantissa stand in a binary32 as they are; its bias is 127, here it is 15.
  return std::bit_cast<float>((uint32_t{code.bits} << 19) + (112u << 23));
}

// The nearest positive one, ties to even; the largest for anything above.
inline ScaleCode ToScaleCode(float value) {
  if (!(value >= 0x1p-14f)) return {static_cast<uint8_t>(std::max(1.0f, std::nearbyint(value * 0x1p18f)))};
  const uint32_t bits = std::bit_cast<uint32_t>(value), odd = (bits >> 19) & 1u;
  return {static_cast<uint8_t>(std::min(((bits + 0x3FFFFu + odd) >> 19) - (112u << 4), 255u))};
}

}  // namespace mica
