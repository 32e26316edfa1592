#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace mica {
namespace {

TEST(Half, EveryF16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const F16 value{static_cast<uint16_t>(bits)};
    const float widened = ToFloat(value);
    if (std::isnan(widened)) {
      EXPECT_TRUE(std::isnan(ToFloat(ToF16(widened))));
    } else {
      EXPECT_EQ(ToF16(widened).bits, bits);
    }
  }
}

TEST(Half, EveryBF16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float widened = ToFloat(BF16{static_cast<uint16_t>(bits)});
    if (std::isnan(widened)) {
      EXPECT_TRUE(std::isnan(ToFloat(ToBF16(widened))));
    } else {
      EXPECT_EQ(ToBF16(widened).bits, bits);
    }
  }
}

TEST(Half, KnownValues) {
  EXPECT_EQ(ToF16(1.0f).bits, 0x3C00);
  EXPECT_EQ(ToF16(-2.0f).bits, 0xC000);
  EXPECT_EQ(ToF16(65504.0f).bits, 0x7BFF);
  EXPECT_EQ(ToF16(65520.0f).bits, 0x7C00);  // halfway to 65536 rounds to even: infinity
  EXPECT_EQ(ToF16(0x1p-24f).bits, 0x0001);
  EXPECT_EQ(ToF16(0x1p-25f).bits, 0x0000);  // tie to even
  EXPECT_EQ(ToF16(0x1.8p-25f).bits, 0x0001);
  EXPECT_EQ(ToBF16(1.0f).bits, 0x3F80);
}

TEST(Half, TiesGoToEven) {
  EXPECT_EQ(ToF16(1.0f + 0x1p-11f).bits, 0x3C00);
  EXPECT_EQ(ToF16(1.0f + 0x1.8p-10f).bits, 0x3C02);
  EXPECT_EQ(ToBF16(1.0f + 0x1p-8f).bits, 0x3F80);
  EXPECT_EQ(ToBF16(1.0f + 0x1.8p-7f).bits, 0x3F82);
}

}  // namespace
}  // namespace mica
