#include "compress/blocks/grid_losses.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/blocks/storage_target.h"
#include "ops/feedback/stored.h"
#include "ops/transpose/transpose.h"
#include "tests/compress/correlated.h"

namespace mica {
namespace {

TEST(GridLosses, OfAllRowsIsTheLossOfTheMatrix) {
  const size_t rows = kSampledRows, cols = 256;
  const Matrix<float> w = GaussianWeights(rows, cols, 3), h = CorrelatedMoments(cols, 1024, 5);
  const DampedFactor factor(h, {}, 0.03);
  const std::vector<double> fisher(rows, 2.0);
  double signal = 0;
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) signal += 2.0 * w(r, c) * w(r, c) * h(c, c);
  }
  const std::vector<BlockGrid> grids = {GridOf(GgmlType::kQ4_K), GridOf(GgmlType::kQ8_0),
                                        GridOf(GgmlType::kQ2_K)};
  const MeasuredMatrix matrix{0, LinearKind::kQ, w, h, factor, fisher, signal};
  const std::vector<double> rounded = RoundedLosses(matrix, grids, {0, 2}),
                            solved = SolvedLosses(matrix, grids, {0, 2}, {});
  EXPECT_TRUE(std::isinf(rounded[1]));
  EXPECT_TRUE(std::isinf(solved[1]));
  for (const size_t grid : {0, 2}) {
    EXPECT_LT(solved[grid], rounded[grid]);
    Matrix<float> values(rows, cols);
    SolveOnBlocks(w, h, factor, grids[grid], {}, nullptr, values);
    Matrix<float> off(rows, cols);
    for (size_t i = 0; i < off.size(); ++i) off.data()[i] = w.data()[i] - values.data()[i];
    const Array by_column = Transposed(off);
    EXPECT_NEAR(solved[grid], 2 * QuadraticLoss(h, by_column.view()), 1e-3 * solved[grid]);
  }
  EXPECT_LT(solved[0], solved[2]);
}

TEST(GgufTarget, TypesThatRowsSuit) {
  const auto names = [](const StorageTarget& target, size_t cols) {
    std::vector<std::string> found;
    for (const size_t grid : target.Candidates(cols)) found.push_back(target.grids()[grid].name);
    return found;
  };
  const auto all = MakeGgufTarget({}), two = MakeGgufTarget({ParseGgufTypes("Q4_K,Q2_K")});
  EXPECT_EQ(names(*all, 256).size(), SolvableTypes().size());
  EXPECT_EQ(names(*two, 512), (std::vector<std::string>{"Q2_K", "Q4_K"}));
  EXPECT_EQ(names(*two, 384), (std::vector<std::string>{"Q4_0", "Q5_0"}));
  EXPECT_ANY_THROW(all->Candidates(48));
  EXPECT_EQ(all->Bits(all->Candidates(64)[0], 10, 64), 10 * 2 * 18 * 8);
  EXPECT_EQ(all->grids()[all->GridOfEnds(6, 512)].name, "Q6_K");
  EXPECT_EQ(all->grids()[all->GridOfEnds(6, 384)].name, "Q8_0");
}

}  // namespace
}  // namespace mica
