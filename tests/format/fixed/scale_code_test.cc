#include "format/fixed/scale_code.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace mica {
namespace {

float Value(int bits) { return ToFloat(ScaleCode{static_cast<uint8_t>(bits)}); }

TEST(ScaleCode, HoldsWhatTheFormatSays) {
  EXPECT_EQ(Value(0), 0.0f);
  for (int bits = 1; bits < 16; ++bits) EXPECT_EQ(Value(bits), std::ldexp(static_cast<float>(bits), -18));
  for (int bits = 16; bits < 256; ++bits)
    EXPECT_EQ(Value(bits), std::ldexp(static_cast<float>(16 + bits % 16), bits / 16 - 19)) << bits;
  EXPECT_EQ(Value(240), 1.0f);
  EXPECT_EQ(Value(255), 1.9375f);
}

TEST(ScaleCode, RoundsToTheNearest) {
  for (int bits = 1; bits < 256; ++bits) {
    EXPECT_EQ(ToScaleCode(Value(bits)).bits, bits);
    if (bits == 255) break;
    const float low = Value(bits), high = Value(bits + 1), middle = 0.5f * (low + high);
    EXPECT_EQ(ToScaleCode(std::nextafter(middle, low)).bits, bits);
    EXPECT_EQ(ToScaleCode(std::nextafter(middle, high)).bits, bits + 1);
    EXPECT_EQ(ToScaleCode(middle).bits, bits + bits % 2);  // ties to even
  }
}

TEST(ScaleCode, IsPositiveAndFiniteForAnything) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float value : {0.0f, -1.0f, -kInfinity, 1e-30f, std::numeric_limits<float>::quiet_NaN()})
    EXPECT_EQ(ToScaleCode(value).bits, 1);
  for (const float value : {2.0f, 1e30f, kInfinity}) EXPECT_EQ(ToScaleCode(value).bits, 255);
}

}  // namespace
}  // namespace mica
