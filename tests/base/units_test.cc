#include "base/units.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mica {
namespace {

TEST(UnitsTest, PerplexitiesOfAnySize) {
  EXPECT_EQ(FormatPerplexity(std::log(72.0731)), "72.07");
  EXPECT_EQ(FormatPerplexity(std::log(72.0731), 3), "72.073");
  EXPECT_EQ(FormatPerplexity(0), "1.00");
  EXPECT_EQ(FormatPerplexity(std::log(9999999.4), 0), "9999999");
  EXPECT_EQ(FormatPerplexity(std::log(1.26e7)), "1.3e+7");
  EXPECT_EQ(FormatPerplexity(std::log(9.97e99)), "1.0e+100");  // the mantissa is rounded up to ten
  EXPECT_EQ(FormatPerplexity(800), "2.7e+347");                // 800 / ln 10 = 347.436
  EXPECT_EQ(FormatPerplexity(1e6), "3.0e+434294");
}

}  // namespace
}  // namespace mica
