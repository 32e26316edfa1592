#include "format/entropy/entropy_matrix.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/threads.h"
#include "format/entropy/tile_coder.h"
#include "io/packed/packed_checkpoint.h"
#include "tests/format/entropy/testing.h"
#include "format/stored_bits.h"

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
  Decode(matrix, out);
  EXPECT_EQ(out(0, 0), -2 * 0.5f);
  EXPECT_EQ(out(1, 0), 4 * 1.0f);
  EXPECT_EQ(out(2, 0), (2 * 3 - 1) * 0.5f);
  EXPECT_EQ(out(3, 0), -3.0f * (EntropyStep(4, 8) * 0.5f));

  // Keys put row 3 first: -2 is then in quantiser 0, state 0 -(0)-> 0 -(1)-> 2 -(0)-> 1.
  matrix.row_key = {5, 5, 9, 1};
  EXPECT_EQ(StoredRowOrder(matrix), (std::vector<uint32_t>{3, 0, 1, 2}));
  Decode(matrix, out);
  EXPECT_EQ(out(3, 0), -4.0f * (EntropyStep(4, 8) * 0.5f));
  EXPECT_EQ(out(0, 0), -2 * 0.5f);
  EXPECT_EQ(out(2, 0), 5 * 0.5f);

  // Four states: 0 -(1)-> 2 -(0)-> 1 -(1)-> 0; quantisers 0, 1, 0, 0.
  matrix.states = 4;
  matrix.row_key.clear();
  Decode(matrix, out);
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

// The stored size is within 1 % of the entropy of the distribution that made the integers, all side
// information counted apart.
TEST(FitEntropyModel, StoredSizeIsNearTheEntropy) {
  for (const double octaves : {-0.5, 0.5, 1.5}) {
    double entropy = 0;
    EntropyMatrix matrix = SeparableGaussian(640, 640, octaves, 17, &entropy);
    FitEntropyModel(matrix);
    const StoredBits estimate = EntropyStoredBits(matrix);
    uint64_t bytes = 0;
    uint64_t code_bytes = 0;
    for (const PackedTensor& tensor : PackEntropy("L", matrix)) {
      bytes += tensor.bytes.size();
      if (tensor.spec.name == "L.codes") code_bytes = tensor.bytes.size();
    }
    const double weights = 640.0 * 640.0;
    EXPECT_LT(8.0 * static_cast<double>(code_bytes), 1.01 * entropy) << octaves;
    EXPECT_LT((8.0 * static_cast<double>(bytes - code_bytes)) / weights, 0.02) << octaves;
    EXPECT_NEAR(static_cast<double>(estimate.total()), 8.0 * static_cast<double>(bytes),
                0.001 * 8.0 * static_cast<double>(bytes))
        << octaves;
  }
}

TEST(FitEntropyModel, DoesNotDependOnTheNumberOfThreads) {
  const int threads = Threads();
  std::vector<std::vector<PackedTensor>> packed;
  for (const int count : {1, 3}) {
    SetThreads(count);
    EntropyMatrix matrix = RandomEntropy(300, 70, 8, 1.0, 4);
    FitEntropyModel(matrix);
    packed.push_back(PackEntropy("L", matrix));
  }
  SetThreads(threads);
  ASSERT_EQ(packed[0].size(), packed[1].size());
  for (size_t i = 0; i < packed[0].size(); ++i)
    EXPECT_EQ(packed[0][i].bytes, packed[1][i].bytes) << packed[0][i].spec.name;
}

// Classes guessed from the weights before rounding are close to those that the integers ask for.
TEST(GuessClasses, CloseToTheFittedOnes) {
  double entropy = 0;
  EntropyMatrix matrix = SeparableGaussian(400, 300, 0.5, 23, &entropy);
  Matrix<float> weights(400, 300);
  Decode(matrix, weights);
  EntropyMatrix guess;
  guess.rows = 400;
  guess.cols = 300;
  guess.row_step = matrix.row_step;
  guess.col_step = matrix.col_step;
  GuessClasses(weights, guess);
  FitEntropyModel(matrix);
  const EntropyTables fitted = matrix.tables;
  const double fitted_bits = EntropyCodeBits(matrix);
  matrix.row_class = guess.row_class;
  matrix.col_class = guess.col_class;
  EXPECT_LT(EntropyCodeBits(matrix), 1.02 * fitted_bits);
}

}  // namespace
}  // namespace mica
