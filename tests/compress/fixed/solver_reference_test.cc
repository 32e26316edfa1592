// SolveFixed against the scalar solver, which follows the method step by step.
#include "compress/fixed/solver_reference.h"

#include <gtest/gtest.h>

#include <cstring>

#include "format/mask/sparsity_pattern.h"
#include "tests/compress/fixed/solved.h"

namespace mica {
namespace {

TEST(SolverReference, PredictsItsLossExactlyAtZeroDamping) {
  const Matrix<float> w = GaussianWeights(9, 45, 1), h = CorrelatedMoments(45, 300, 2);
  FixedSolverSettings settings = Plain();
  settings.damping = 0;
  settings.group_size = 16;
  for (const double rate : {0.0, 0.5}) {
    settings.sparsity.rate = rate;
    for (const std::vector<uint8_t>& widths : {Uniform(45, 3), Uniform(45, 16), Mixed(45)}) {
      const ReferenceResult result = SolveReference<double>(w, h, widths, settings);
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
};

class AgainstReference : public testing::TestWithParam<ReferenceCase> {};

TEST_P(AgainstReference, StoresTheSame) {
  const ReferenceCase& c = GetParam();
  const Matrix<float> w = GaussianWeights(c.rows, c.cols, 11),
                      h = CorrelatedMoments(c.cols, 4 * c.cols + 8, 12);
  FixedSolverSettings settings = Plain();
  settings.group_size = c.group_size;
  settings.sparsity = c.sparsity;
  settings.search_rounds = c.rounds;
  if (c.unequal) {
    settings.pruned_shares = UnequalShares(c.cols);
    for (size_t r = 0; r < c.rows; ++r) settings.row_importance.push_back(0.5f + static_cast<float>(r % 4));
  }
  const std::vector<uint8_t> widths = c.bits == 0 ? Mixed(c.cols) : Uniform(c.cols, c.bits);
  const ReferenceResult expected = SolveReference<float>(w, h, widths, settings);
  SolverReport report;
  const FixedMatrix got = SolveFixed(w, h, widths, settings, &report);
  ExpectValid(got);
  EXPECT_EQ(got.order, expected.matrix.order);
  EXPECT_EQ(got.widths, expected.matrix.widths);
  EXPECT_EQ(got.mask, expected.matrix.mask);
  // The order of summation differs, so a weight halfway between two codes may go either way, and what follows
  // it in its row then differs, too: most rows must be the same to the last bit, and the loss must not
  // notice.
  size_t same_rows = 0;
  for (size_t r = 0; r < c.rows; ++r) {
    bool same = std::memcmp(got.codes.row(r), expected.matrix.codes.row(r), c.cols * sizeof(uint16_t)) == 0;
    if (got.mask != MaskKind::kNone)
      same = same && std::memcmp(got.keep.row(r), expected.matrix.keep.row(r), c.cols) == 0;
    for (size_t g = 0; g < got.scales.rows(); ++g) {
      same = same && got.scales(g, r).bits == expected.matrix.scales(g, r).bits &&
             got.zeros(g, r) == expected.matrix.zeros(g, r);
    }
    same_rows += same;
  }
  // FP16 values have far more halfway points, and a changed value disturbs nothing much.
  if (c.bits != 16) {
    EXPECT_GE(same_rows * 10, c.rows * 7);
  }
  EXPECT_NEAR(report.predicted_loss, expected.predicted_loss, 2e-2 * expected.predicted_loss);
  EXPECT_NEAR(Loss(w, got, h), Loss(w, expected.matrix, h), 2e-2 * expected.predicted_loss);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, AgainstReference,
    testing::Values(ReferenceCase{"plain", kRows, kCols, 128, 4, {}, 3},
                    ReferenceCase{"no_search", kRows, kCols, 128, 3, {}, 0},
                    ReferenceCase{"small_groups", 33, 150, 16, 3, {}, 3},
                    ReferenceCase{"large_group", 20, 300, 280, 4, {}, 3},
                    ReferenceCase{"mixed", kRows, 180, 32, 0, {}, 3},
                    ReferenceCase{"half", 20, kCols, 128, 16, {}, 3},
                    ReferenceCase{"sparse", kRows, 150, 128, 4, {0.5, 0, 0}, 3},
                    ReferenceCase{"sparse_unequal", kRows, 150, 128, 4, {0.5, 0, 0}, 3, true},
                    ReferenceCase{"sparse_unequal_mixed", kRows, 160, 24, 0, {0.4, 0, 0}, 3, true},
                    ReferenceCase{"sparse_mixed", kRows, 160, 24, 0, {0.3, 0, 0}, 3},
                    ReferenceCase{"two_of_four", kRows, 137, 50, 4, {0, 2, 4}, 3},
                    ReferenceCase{"four_of_eight", 21, 141, 30, 3, {0, 4, 8}, 3},
                    ReferenceCase{"two_of_four_mixed", 21, 150, 128, 0, {0, 2, 4}, 3},
                    ReferenceCase{"one_row", 1, 70, 128, 3, {}, 3},
                    ReferenceCase{"one_column", 35, 1, 128, 3, {}, 3},
                    ReferenceCase{"one_weight", 1, 1, 128, 2, {}, 3}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace mica
