#include "format/entropy/entropy_matrix.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mica {
namespace {

TEST(EntropyStep, Values) {
  EXPECT_EQ(EntropyStep(0, 8), 1.0f);
  EXPECT_EQ(EntropyStep(-8, 8), 0.5f);
  EXPECT_EQ(EntropyStep(24, 8), 8.0f);
  EXPECT_EQ(EntropyStep(4, 8), static_cast<float>(std::sqrt(2.0)));
  EXPECT_EQ(EntropyStep(-1, 8), EntropyStep(-8, 64));
  for (int e = -400; e <= 400; ++e)
    EXPECT_FLOAT_EQ(EntropyStep(e, 8), static_cast<float>(std::exp2(e / 8.0)));
  for (int e = -3200; e <= 3200; e += 7)
    EXPECT_FLOAT_EQ(EntropyStep(e, 64), static_cast<float>(std::exp2(e / 64.0)));
}

// One column, four rows. Eight states: 0 -(1)-> 2 -(0)-> 1 -(1)-> 7 ; quantisers 0, 0, 1, 1.
TEST(DecodeEntropy, TrellisByHand) {
  EntropyMatrix matrix;
  matrix.rows = 4;
  matrix.cols = 1;
  matrix.states = 8;
  matrix.n = Matrix<int16_t>(4, 1);
  const int16_t n[4] = {-1, 2, 3, -2};
  std::copy_n(n, 4, matrix.n.data());
  matrix.row_step = {0, 8, 0, 4};
  matrix.col_step = {-8};
  Matrix<float> out(4, 1, NAN);
  DecodeTile(matrix, StoredRowOrder(matrix), 0, out);
  EXPECT_EQ(out(0, 0), -2 * 0.5f);
  EXPECT_EQ(out(1, 0), 4 * 1.0f);
  EXPECT_EQ(out(2, 0), (2 * 3 - 1) * 0.5f);
  EXPECT_EQ(out(3, 0), -3.0f * (EntropyStep(4, 8) * 0.5f));

  // Keys put row 3 first: -2 is then in quantiser 0, state 0 -(0)-> 0 -(1)-> 2 -(0)-> 1.
  matrix.row_key = {5, 5, 9, 1};
  EXPECT_EQ(StoredRowOrder(matrix), (std::vector<uint32_t>{3, 0, 1, 2}));
  DecodeTile(matrix, StoredRowOrder(matrix), 0, out);
  EXPECT_EQ(out(3, 0), -4.0f * (EntropyStep(4, 8) * 0.5f));
  EXPECT_EQ(out(0, 0), -2 * 0.5f);
  EXPECT_EQ(out(2, 0), 5 * 0.5f);

  // Four states: 0 -(1)-> 2 -(0)-> 1 -(1)-> 0; quantisers 0, 1, 0, 0.
  matrix.states = 4;
  matrix.row_key.clear();
  DecodeTile(matrix, StoredRowOrder(matrix), 0, out);
  EXPECT_EQ(out(1, 0), 3 * 1.0f);
  EXPECT_EQ(out(2, 0), 6 * 0.5f);
  EXPECT_EQ(out(3, 0), -4.0f * (EntropyStep(4, 8) * 0.5f));
}

TEST(Trellis, EveryStateIsReachedFromTwo) {
  for (const int states : {4, 8}) {
    const Trellis& trellis = TrellisOf(states);
    std::vector<int> reached(8);
    for (int s = 0; s < states; ++s) {
      EXPECT_NE(trellis.next[static_cast<size_t>(s)][0], trellis.next[static_cast<size_t>(s)][1]);
      for (const uint8_t to : trellis.next[static_cast<size_t>(s)]) ++reached[to];
    }
    for (int s = 0; s < states; ++s) EXPECT_EQ(reached[static_cast<size_t>(s)], 2);
  }
}

}  // namespace
}  // namespace mica
