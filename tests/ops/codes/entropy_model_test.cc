#include "ops/codes/entropy_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/threads.h"
#include "format/entropy/lanes.h"
#include "ops/codes/codes.h"
#include "tests/format/entropy/testing.h"

namespace mica {
namespace {

// What coding the integers should take: their code lengths, and what each lane leaves in its first state.
double CodeLengths(const EntropyMatrix& matrix) {
  return EntropyCodeBits(matrix) + static_cast<double>(matrix.tiles() * ChooseLanes(matrix)) * kLaneBits;
}

// The stored size is within 1 % of the entropy of the distribution that made the integers, all side
// information counted apart.
TEST(FitEntropyModel, StoredSizeIsNearTheEntropy) {
  for (const double octaves : {-0.5, 0.5, 1.5}) {
    double entropy = 0;
    EntropyMatrix matrix = SeparableGaussian(640, 640, octaves, 17, &entropy);
    FitEntropyModel(matrix);
    const PackedMatrix packed = Pack(matrix);
    const double code_bits = static_cast<double>(packed.code_bits());
    const double weights = 640.0 * 640.0;
    EXPECT_LT(code_bits, 1.01 * entropy) << octaves;
    EXPECT_LT((static_cast<double>(packed.bits()) - code_bits) / weights, 0.02) << octaves;
    EXPECT_NEAR(CodeLengths(matrix), code_bits, 0.001 * code_bits) << octaves;
  }
}

TEST(FitEntropyModel, DoesNotDependOnTheNumberOfThreads) {
  const int threads = Threads();
  std::vector<PackedMatrix> packed;
  for (const int count : {1, 3}) {
    SetThreads(count);
    EntropyMatrix matrix = RandomEntropy(300, 70, 8, 1.0, 4);
    FitEntropyModel(matrix);
    packed.push_back(Pack(matrix));
  }
  SetThreads(threads);
  ASSERT_EQ(packed[0].parts.size(), packed[1].parts.size());
  for (size_t i = 0; i < packed[0].parts.size(); ++i)
    EXPECT_EQ(packed[0].parts[i].bytes, packed[1].parts[i].bytes) << i;
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
