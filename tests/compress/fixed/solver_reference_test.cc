// SolveFixed against its oracle, bit by bit.
#include "tests/compress/fixed/solver_reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "tests/compress/fixed/solved.h"

namespace mica {
namespace {

TEST(SolverReference, PredictsItsLossExactlyAtZeroDamping) {
  Matrix<float> w = GaussianWeights(9, 45, 1);
  const Matrix<float> h = CorrelatedMoments(45, 300, 2);
  FixedOptions settings = Plain();
  settings.damping = 0;
  settings.group_size = 16;
  for (const double rate : {0.0, 0.5}) {
    settings.sparsity.rate = rate;
    for (const std::vector<uint8_t>& widths : {Uniform(45, 3), Uniform(45, 16), Mixed(45)}) {
      const ReferenceResult result = Reference(w, h, widths, settings).Solve();
      EXPECT_NEAR(result.predicted_loss, result.measured_loss, 1e-9 * result.measured_loss);
      EXPECT_NEAR(Loss(w, result.matrix, h), result.measured_loss, 1e-5 * result.measured_loss);
    }
  }
}

struct ReferenceCase {
  const char* name;
  size_t rows, cols, group_size;
  int bits;  // 0: mixed
  SparsityPattern sparsity;
  int rounds = 3;
  bool unequal = false;  // shares of columns and importance of rows
  double saliency_exponent = 1;
  bool dead = false;  // three channels are always zero
};

class AgainstReference : public testing::TestWithParam<ReferenceCase> {};

// Weights are those of a random matrix, but for a few that the oracle moves by some thousandths of their size
// until no decision on its way is so close that FP32 could make it otherwise. Then nothing may differ.
TEST_P(AgainstReference, StoresTheSameInEveryRow) {
  const ReferenceCase& c = GetParam();
  Matrix<float> w = GaussianWeights(c.rows, c.cols, 11);
  Matrix<float> h = CorrelatedMoments(c.cols, 4 * c.cols + 8, 12);
  for (size_t i = 0; i < c.cols && c.dead; ++i) {
    for (const size_t j : {size_t{2}, c.cols / 2, c.cols - 1}) h(i, j) = h(j, i) = 0;
  }
  FixedOptions settings = Plain();
  settings.group_size = c.group_size;
  settings.sparsity = c.sparsity;
  settings.search_rounds = c.rounds;
  settings.saliency_exponent = c.saliency_exponent;
  if (c.unequal) {
    settings.pruned_shares = UnequalShares(c.cols);
    for (size_t r = 0; r < c.rows; ++r) settings.row_importance.push_back(0.5f + static_cast<float>(r % 4));
  }
  const std::vector<uint8_t> widths = c.bits == 0 ? Mixed(c.cols, c.sparsity) : Uniform(c.cols, c.bits);
  const Matrix<float> drawn = w.Clone();
  Reference reference(w, h, widths, settings);
  ReferenceResult expected;
  ASSERT_TRUE(reference.SolveClearly(&expected)) << reference.doubtful() << " decisions are doubtful";
  double moved = 0, size = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    moved += std::pow(double{w.data()[i]} - drawn.data()[i], 2);
    size += std::pow(double{drawn.data()[i]}, 2);
  }
  EXPECT_LT(std::sqrt(moved / size), 0.003);
  EXPECT_LE(reference.passes(), 50);

  SolverReport report;
  const FixedMatrix got = SolveFixed(w, h, widths, settings, &report);
  ExpectValid(got);
  EXPECT_EQ(got.order, expected.matrix.order);
  EXPECT_EQ(got.widths, expected.matrix.widths);
  EXPECT_EQ(got.mask, expected.matrix.mask);
  EXPECT_EQ(got.exponent, expected.matrix.exponent);
  EXPECT_EQ(got.group_size, expected.matrix.group_size);
  ASSERT_EQ(got.scales.rows(), expected.matrix.scales.rows());
  ASSERT_EQ(got.keep.size(), expected.matrix.keep.size());
  size_t different_rows = 0;
  for (size_t r = 0; r < c.rows; ++r) {
    bool same = std::memcmp(got.codes.row(r), expected.matrix.codes.row(r), c.cols * sizeof(uint16_t)) == 0;
    if (got.mask != MaskKind::kNone)
      same = same && std::memcmp(got.keep.row(r), expected.matrix.keep.row(r), c.cols) == 0;
    for (size_t g = 0; g < got.scales.rows(); ++g) {
      same = same && got.scales(g, r).bits == expected.matrix.scales(g, r).bits &&
             got.zeros(g, r) == expected.matrix.zeros(g, r);
    }
    different_rows += same ? 0 : 1;
  }
  EXPECT_EQ(different_rows, 0u) << "of " << c.rows;
  EXPECT_NEAR(report.feedback_loss, expected.predicted_loss, 1e-4 * expected.predicted_loss);
  EXPECT_NEAR(report.predicted_loss, expected.predicted_loss, 1e-4 * expected.predicted_loss);
  EXPECT_NEAR(report.measured_loss, expected.measured_loss, 1e-4 * expected.measured_loss);
  EXPECT_EQ(report.dead_channels, c.dead ? 3u : 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, AgainstReference,
    testing::Values(ReferenceCase{"plain", kRows, kCols, 128, 4, {}, 3},
                    ReferenceCase{"no_search", kRows, kCols, 128, 3, {}, 0},
                    ReferenceCase{"small_groups", 33, 150, 16, 3, {}, 3},
                    ReferenceCase{"two_bits", kRows, kCols, 64, 2, {}, 3},
                    ReferenceCase{"eight_bits", 20, kCols, 64, 8, {}, 3},
                    ReferenceCase{"large_group", 20, 300, 280, 4, {}, 3},
                    ReferenceCase{"large_group_sparse", 20, 300, 280, 4, {0.5, 0, 0}, 3},
                    ReferenceCase{"large_group_two_of_four", 20, 300, 280, 4, {0, 2, 4}, 3},
                    ReferenceCase{"mixed", kRows, 180, 32, 0, {}, 3},
                    ReferenceCase{"half", 20, kCols, 128, 16, {}, 3},
                    ReferenceCase{"half_sparse", 20, kCols, 128, 16, {0.5, 0, 0}, 3},
                    ReferenceCase{"sparse", kRows, 150, 128, 4, {0.5, 0, 0}, 3},
                    ReferenceCase{"sparse_wanda", kRows, 150, 128, 4, {0.5, 0, 0}, 3, false, 0},
                    ReferenceCase{"sparse_unequal", kRows, 150, 128, 4, {0.5, 0, 0}, 3, true},
                    ReferenceCase{"sparse_unequal_mixed", kRows, 160, 24, 0, {0.4, 0, 0}, 3, true, 0.5},
                    ReferenceCase{"sparse_mixed", kRows, 160, 24, 0, {0.3, 0, 0}, 3},
                    ReferenceCase{"sparse_dead", kRows, 150, 50, 4, {0.5, 0, 0}, 3, false, 1, true},
                    ReferenceCase{"two_of_four", kRows, 137, 50, 4, {0, 2, 4}, 3},
                    ReferenceCase{"four_of_eight", 21, 141, 30, 3, {0, 4, 8}, 3},
                    ReferenceCase{"two_of_four_mixed", 21, 150, 128, 0, {0, 2, 4}, 3},
                    ReferenceCase{"dead", 21, 150, 64, 0, {}, 3, false, 1, true},
                    ReferenceCase{"one_row", 1, 70, 128, 3, {}, 3},
                    ReferenceCase{"one_column", 35, 1, 128, 3, {}, 3},
                    ReferenceCase{"one_weight", 1, 1, 128, 2, {}, 3}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace mica
