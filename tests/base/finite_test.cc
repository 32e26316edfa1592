// Values that arithmetic cannot go on with are named by their place.
#include "base/finite.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/error_message.h"

namespace mica {
namespace {

TEST(CheckFinite, NamesThePlaceAndTheValue) {
  Matrix<float> values(3, 5, 1e30f);
  EXPECT_EQ(MessageOf([&] { CheckFinite(values, "weights"); }), "");
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    values(1, 3) = bad;
    ExpectError([&] { CheckFinite(values, "weights"); }, {"weights: row 1, column 3 is ", "finite"});
  }
}

TEST(CheckFitsHalf, TakesWhatRoundsToTheLargestHalf) {
  Matrix<float> values(2, 2, 65504.0f);
  values(1, 0) = -65519.0f;
  EXPECT_EQ(MessageOf([&] { CheckFitsHalf(values, "t"); }), "");
  for (const float bad : {65520.0f, -70000.0f, INFINITY, NAN}) {
    values(1, 1) = bad;
    ExpectError([&] { CheckFitsHalf(values, "t"); }, {"t: row 1, column 1 is ", "65504"});
  }
}

}  // namespace
}  // namespace mica
