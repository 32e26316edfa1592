#include "base/error.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>

namespace mica {
namespace {

TEST(CheckDeathTest, PrintsTheValuesOfAComparison) {
  const size_t rows = 4;
  const int cols = 5;
  const std::string name = "q";
  EXPECT_DEATH(MICA_CHECK(rows == 5u), "rows == 5u does not hold \\(4 and 5\\)");
  EXPECT_DEATH(MICA_CHECK(cols + 1 < 6), "\\(6 and 6\\)");
  EXPECT_DEATH(MICA_CHECK(0.5 >= 0.75), "\\(0.5 and 0.75\\)");
  EXPECT_DEATH(MICA_CHECK(name == "k"), "\\('q' and 'k'\\)");
  EXPECT_DEATH(MICA_CHECK(std::unique_ptr<int>() != nullptr), "\\(null and null\\)");
  EXPECT_DEATH(MICA_CHECK(rows == 4 && cols == 4),
               "rows == 4 && cols == 4 does not hold; please report this");
  EXPECT_DEATH(MICA_CHECK(false), "internal error at .*error_test.cc:[0-9]+: false does not hold");
}

TEST(CheckTest, PassesWhatHoldsAndEvaluatesItOnce) {
  int count = 0;
  MICA_CHECK(++count == 1);
  MICA_CHECK(count == 1 || count == 2);
  MICA_CHECK(count == 1 ? true : false);
  MICA_CHECK(-1 < sizeof(int));  // by value, not by type
  EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace mica
