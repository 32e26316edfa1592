#include "base/error.h"

#include <gtest/gtest.h>

#include <string>

namespace mica {
namespace {

// The value, which the compiler does not know.
template <typename T>
T Opaque(T value) {
  volatile T hidden = value;
  return hidden;
}

TEST(CheckDeathTest, PrintsTheValuesOfAComparison) {
  const size_t rows = Opaque(size_t{4});
  const int cols = Opaque(5);
  const double share = Opaque(0.5);
  const int* const none = Opaque<const int*>(nullptr);
  const std::string name(Opaque(size_t{1}), 'q');
  EXPECT_DEATH(MICA_CHECK(rows == 5u), "rows == 5u does not hold \\(4 and 5\\)");
  EXPECT_DEATH(MICA_CHECK(cols + 1 < 6), "\\(6 and 6\\)");
  EXPECT_DEATH(MICA_CHECK(share >= 0.75), "\\(0.5 and 0.75\\)");
  EXPECT_DEATH(MICA_CHECK(name == "k"), "\\('q' and 'k'\\)");
  EXPECT_DEATH(MICA_CHECK(none != nullptr), "\\(null and null\\)");
  EXPECT_DEATH(MICA_CHECK(rows == 4 && cols == 4),
               "rows == 4 && cols == 4 does not hold; please report this");
  const int known = 4;  // to the compiler as well
  EXPECT_DEATH(MICA_CHECK(known == 5), "known == 5 does not hold \\(4 and 5\\)");
  EXPECT_DEATH(MICA_CHECK(false), "internal error at .*error_test.cc:[0-9]+: false does not hold");
}

TEST(CheckTest, PassesWhatHoldsAndEvaluatesItOnce) {
  int count = Opaque(0);
  MICA_CHECK(++count == 1);
  MICA_CHECK(count == 1 || count == 2);
  MICA_CHECK(count == 1 ? true : false);
  EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace mica
