#include "compress/inform/column_exponents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/matrix.h"

namespace mica {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;

// Weights of both signs between 1/2 and 3/2.
Matrix<float> Alike(size_t rows, size_t cols) {
  Matrix<float> w(rows, cols);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c)
      w(r, c) = (0.5f + static_cast<float>((7 * r + 3 * c) % 11) / 10) * ((r + c) % 2 == 0 ? 1.0f : -1.0f);
  }
  return w;
}

void Scale(Matrix<float>& w, size_t col, int octaves) {
  for (size_t r = 0; r < w.rows(); ++r) w(r, col) = std::ldexp(w(r, col), octaves);
}

TEST(ColumnExponentsTest, ColumnsThatAreAlikeHaveNone) {
  Matrix<float> w = Alike(33, 5);
  EXPECT_THAT(ColumnExponents(w), IsEmpty());
  Scale(w, 2, 2);
  EXPECT_THAT(ColumnExponents(w), IsEmpty());
  EXPECT_THAT(ColumnExponents(Matrix<float>(4, 3, 0.0f)), IsEmpty());
}

TEST(ColumnExponentsTest, AColumnFarFromTheOthersGetsItsScale) {
  for (const int octaves : {-40, -20, -5, 5, 20, 40}) {
    Matrix<float> w = Alike(33, 5);
    Scale(w, 1, octaves);
    const std::vector<int8_t> found = ColumnExponents(w);
    EXPECT_NEAR(found.at(1), octaves, 1);
    EXPECT_THAT((std::vector<int8_t>{found[0], found[2], found[3], found[4]}), Each(0));
    // A power of two more is exactly that much more.
    Scale(w, 1, octaves < 0 ? -1 : 1);
    EXPECT_EQ(ColumnExponents(w).at(1), found[1] + (octaves < 0 ? -1 : 1));
  }
}

TEST(ColumnExponentsTest, OneLargeWeightOrManyZerosMakeNoColumnFar) {
  Matrix<float> w = Alike(33, 4);
  w(3, 2) = 1e6f;
  for (size_t r = 0; r < 30; ++r) w(r, 0) = 0;
  EXPECT_THAT(ColumnExponents(w), IsEmpty());
  Scale(w, 0, -9);
  for (size_t r = 0; r < w.rows(); ++r) w(r, 3) = 0;
  EXPECT_THAT(ColumnExponents(w), ElementsAre(testing::AllOf(testing::Ge(-10), testing::Le(-8)), 0, 0, 0));
}

}  // namespace
}  // namespace mica
