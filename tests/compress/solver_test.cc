#include "compress/solver.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "base/threads.h"
#include "compress/solver_plan.h"
#include "compress/solver_reference.h"
#include "tests/compress/correlated.h"

namespace mica {
namespace {

constexpr size_t kRows = 37, kCols = 131;  // neither a multiple of a tile nor of a block

FixedSettings Plain() {
  FixedSettings settings;
  settings.refine_passes = 0;
  return settings;
}

std::vector<uint8_t> Uniform(size_t cols, int bits) {
  return std::vector<uint8_t>(cols, static_cast<uint8_t>(bits));
}

// Widths of every kind, mixed over the columns.
std::vector<uint8_t> Mixed(size_t cols) {
  const uint8_t cycle[] = {4, 3, 8, 2, 4, 0, 6, 3, 4, 16, 3};
  std::vector<uint8_t> widths(cols);
  for (size_t j = 0; j < cols; ++j) widths[j] = cycle[j % std::size(cycle)];
  return widths;
}

Matrix<float> Decoded(const FixedMatrix& matrix) {
  Matrix<float> out(matrix.rows, matrix.cols, std::numeric_limits<float>::quiet_NaN());
  Decode(matrix, out);
  return out;
}

double Loss(MatrixView<const float> w, const FixedMatrix& matrix, MatrixView<const float> h) {
  return LossBetween(w, Decoded(matrix), h);
}

uint64_t Zeros(MatrixView<const float> values) {
  uint64_t zeros = 0;
  for (size_t r = 0; r < values.rows; ++r)
    zeros += static_cast<uint64_t>(std::count(values.row(r), values.row(r) + values.cols, 0.0f));
  return zeros;
}

template <typename T>
bool Same(const Matrix<T>& a, const Matrix<T>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Everything that a reader relies on.
void ExpectValid(const FixedMatrix& m) {
  const std::vector<ScaleGroup> groups = ScaleGroups(m.widths, m.group_size);
  std::vector<uint32_t> sorted = m.order;
  std::sort(sorted.begin(), sorted.end());
  for (uint32_t j = 0; j < m.cols; ++j) ASSERT_EQ(sorted[j], j);
  for (const ScaleGroup& group : groups) {
    for (size_t r = 0; r < m.rows; ++r) {
      if (group.scale_row >= 0) {
        const float scale = ToFloat(m.scales(static_cast<size_t>(group.scale_row), r));
        ASSERT_TRUE(scale > 0 && std::isfinite(scale));
        ASSERT_LT(m.zeros(static_cast<size_t>(group.scale_row), r), 1 << group.bits);
      }
      for (size_t p = group.start; p < group.start + group.count; ++p) {
        const bool kept = group.bits != 0 && (m.mask == MaskKind::kNone || m.keep(r, p) != 0);
        if (!kept) {
          ASSERT_EQ(m.codes(r, p), 0);
        } else if (group.bits < 16) {
          ASSERT_LT(m.codes(r, p), 1 << group.bits);
        }
      }
    }
  }
}

void ExpectCells(const FixedMatrix& m, size_t kept, size_t cols) {
  size_t coded = 0;
  while (coded < m.cols && m.widths[coded] != 0) ++coded;
  for (size_t r = 0; r < m.rows; ++r) {
    for (size_t p = 0; p + cols <= coded; p += cols) {
      ASSERT_EQ(static_cast<size_t>(std::accumulate(m.keep.row(r) + p, m.keep.row(r) + p + cols, 0)), kept)
          << r << ' ' << p;
    }
  }
}

// Shares from 0 to 1, some of them all or nothing.
std::vector<double> UnequalShares(size_t cols) {
  std::vector<double> shares(cols);
  for (size_t c = 0; c < cols; ++c)
    shares[c] =
        std::clamp(-0.2 + 1.4 * static_cast<double>(c * 37 % cols) / static_cast<double>(cols), 0.0, 1.0);
  return shares;
}

struct Threading {
  explicit Threading(int threads) { SetThreads(threads); }
  ~Threading() { SetThreads(0); }
};

// ---- the loss
// ------------------------------------------------------------------------------------------------------

TEST(SolverReference, PredictsItsLossExactlyAtZeroDamping) {
  const Matrix<float> w = GaussianWeights(9, 45, 1), h = CorrelatedMoments(45, 300, 2);
  FixedSettings settings = Plain();
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

TEST(SolveFixed, PredictsItsLossAtZeroDamping) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 3), h = CorrelatedMoments(kCols, 800, 4);
  for (const int passes : {0, 3}) {
    for (const SparsityPattern sparsity :
         {SparsityPattern{}, SparsityPattern{0.5, 0, 0}, SparsityPattern{0, 2, 4}}) {
      FixedSettings settings;
      settings.damping = 0;
      settings.group_size = 32;
      settings.refine_passes = passes;
      settings.sparsity = sparsity;
      SolverReport report;
      const FixedMatrix q = SolveFixed(w, h, Mixed(kCols), settings, &report);
      const double truth = Loss(w, q, h);
      EXPECT_NEAR(report.measured_loss, truth, 1e-4 * truth);
      EXPECT_NEAR(report.predicted_loss, truth, 2e-4 * truth)
          << passes << ' ' << sparsity.rate << ' ' << sparsity.n;
      const Matrix<float> nothing(kRows, kCols, 0.0f);
      EXPECT_NEAR(report.relative_error, truth / LossBetween(w, nothing, h), 1e-4 * report.relative_error);
      EXPECT_EQ(report.damping_doublings, 0);
      if (passes == 0) {
        EXPECT_EQ(report.predicted_loss, report.feedback_loss);
      }
    }
  }
}

TEST(SolveFixed, EveryWidthCounts) {
  const Matrix<float> w = GaussianWeights(40, 200, 5), h = CorrelatedMoments(200, 900, 6);
  for (const int passes : {0, 2}) {
    FixedSettings settings = Plain();
    settings.refine_passes = passes;
    double previous = std::numeric_limits<double>::infinity();
    for (const int bits : {2, 3, 4, 6, 8, 16}) {
      SolverReport report;
      const FixedMatrix q = SolveFixed(w, h, Uniform(200, bits), settings, &report);
      ExpectValid(q);
      const double loss = Loss(w, q, h);
      EXPECT_LT(loss, 0.5 * previous) << bits;
      EXPECT_GT(loss, 0) << bits;
      previous = loss;
    }
  }
}

TEST(SolveFixed, FeedbackBeatsRoundingAndRefinementBeatsFeedback) {
  const Matrix<float> w = GaussianWeights(64, 256, 7), h = CorrelatedMoments(256, 1200, 8);
  for (const int bits : {2, 3, 4}) {
    const double rounded = Loss(w, RoundToNearest(w, bits, 128), h);
    FixedSettings settings = Plain();
    settings.search_rounds = 0;
    const double plain = Loss(w, SolveFixed(w, h, Uniform(256, bits), settings, nullptr), h);
    settings.search_rounds = 3;
    const double searched = Loss(w, SolveFixed(w, h, Uniform(256, bits), settings, nullptr), h);
    settings.refine_passes = 4;
    const double refined = Loss(w, SolveFixed(w, h, Uniform(256, bits), settings, nullptr), h);
    EXPECT_LT(plain, 0.6 * rounded) << bits;
    EXPECT_LT(searched, 0.985 * plain) << bits;
    EXPECT_LT(refined, 0.998 * searched) << bits;
  }
}

// ---- against the scalar reference
// ------------------------------------------------------------------------------------

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
  FixedSettings settings = Plain();
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

// ---- sparsity
// ---------------------------------------------------------------------------------------------------------

TEST(SolveFixed, MeetsTheRateExactly) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 21), h = CorrelatedMoments(kCols, 600, 22);
  for (const double rate : {0.01, 0.3, 0.5, 0.77, 0.99}) {
    for (const int passes : {0, 3}) {
      FixedSettings settings;
      settings.refine_passes = passes;
      settings.sparsity.rate = rate;
      SolverReport report;
      const FixedMatrix q = SolveFixed(w, h, Uniform(kCols, 16), settings,
                                       &report);  // FP16 values of pruned weights only are zero
      ExpectValid(q);
      EXPECT_EQ(Zeros(Decoded(q)), static_cast<uint64_t>(std::ceil(rate * kRows * kCols - 1e-6))) << rate;
      EXPECT_DOUBLE_EQ(report.zero_share, static_cast<double>(Zeros(Decoded(q))) / (kRows * kCols));
    }
  }
}

TEST(SolveFixed, MeetsTheRateWithinEveryWidth) {
  const Matrix<float> w = GaussianWeights(kRows, 200, 23), h = CorrelatedMoments(200, 600, 24);
  FixedSettings settings;
  settings.sparsity.rate = 0.5;
  const std::vector<uint8_t> widths = Mixed(200);
  const FixedMatrix q = SolveFixed(w, h, widths, settings, nullptr);
  const size_t coded = 200 - static_cast<size_t>(std::count(widths.begin(), widths.end(), 0));
  const std::vector<uint64_t> before = PrunedBefore(kRows, std::vector<double>(200, 0.5), coded);
  uint64_t pruned = 0, run_pruned = 0;
  for (size_t p = 0; p < coded; ++p) {
    for (size_t r = 0; r < kRows; ++r) run_pruned += q.keep(r, p) == 0;
    if (p + 1 < 200 && q.widths[p + 1] == q.widths[p]) continue;
    pruned += run_pruned;
    run_pruned = 0;
    EXPECT_EQ(pruned, before[p + 1]);
  }
  EXPECT_EQ(pruned + kRows * (200 - coded), kRows * 200 / 2);
}

TEST(PrunedBefore, FollowsTheShares) {
  EXPECT_EQ(PrunedBefore(10, {0.5, 0.1, 0.9, 0.0}, 4), (std::vector<uint64_t>{0, 5, 6, 15, 15}));
  // One column has no width: what it loses, 10, is more than the 9.5 in all, or less than the 15 in all.
  EXPECT_EQ(PrunedBefore(10, {0.5, 0.1, 0.35}, 2), (std::vector<uint64_t>{0, 0, 0}));
  EXPECT_EQ(PrunedBefore(10, {0.5, 0.5, 0.5}, 2), (std::vector<uint64_t>{0, 2, 5}));
  EXPECT_EQ(PrunedBefore(10, {0.5}, 0), (std::vector<uint64_t>{0}));
  EXPECT_EQ(PrunedBefore(10, {0.0, 0.0}, 2), (std::vector<uint64_t>{0, 0, 0}));
}

TEST(PrunedBefore, TakesNoMoreThanAColumnHas) {
  std::mt19937 generator(5);
  std::uniform_real_distribution<double> uniform;
  for (int trial = 0; trial < 200; ++trial) {
    const size_t rows = 1 + generator() % 50, cols = 1 + generator() % 60, coded = generator() % (cols + 1);
    std::vector<double> shares(cols);
    for (double& share : shares) share = std::min(1.0, 1.3 * uniform(generator));
    const std::vector<uint64_t> before = PrunedBefore(rows, shares, coded);
    for (size_t p = 0; p < coded; ++p) {
      ASSERT_GE(before[p + 1], before[p]);
      ASSERT_LE(before[p + 1] - before[p], rows);
    }
  }
}

TEST(SolveFixed, PrunesColumnsByTheirShares) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 41), h = CorrelatedMoments(kCols, 600, 42);
  for (const std::vector<uint8_t>& widths : {Uniform(kCols, 16), Uniform(kCols, 3), Mixed(kCols)}) {
    FixedSettings settings;
    settings.sparsity.rate = 0.5;
    settings.pruned_shares = UnequalShares(kCols);
    const FixedMatrix q = SolveFixed(w, h, widths, settings, nullptr);
    ExpectValid(q);
    std::vector<double> shares;
    for (const uint32_t column : q.order) shares.push_back(settings.pruned_shares[column]);
    const size_t coded = kCols - static_cast<size_t>(std::count(widths.begin(), widths.end(), 0));
    const std::vector<uint64_t> before = PrunedBefore(kRows, shares, coded);
    uint64_t pruned = 0;
    for (size_t p = 0; p < coded; ++p) {
      for (size_t r = 0; r < kRows; ++r) pruned += q.keep(r, p) == 0;
      // Within a block of columns the scores decide; where a width ends, the shares do.
      if (p + 1 == coded || q.widths[p + 1] != q.widths[p]) {
        EXPECT_EQ(pruned, before[p + 1]) << p;
      }
    }
  }
}

TEST(SolveFixed, SparesImportantRows) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 43), h = CorrelatedMoments(kCols, 600, 44);
  FixedSettings settings;
  settings.sparsity.rate = 0.5;
  settings.row_importance.assign(kRows, 1.0f);
  settings.row_importance[3] = 16.0f;
  settings.row_importance[5] = 0.0f;
  const FixedMatrix q = SolveFixed(w, h, Uniform(kCols, 4), settings, nullptr);
  const auto kept = [&](size_t r) {
    return std::accumulate(q.keep.row(r), q.keep.row(r) + kCols, size_t{0});
  };
  EXPECT_GT(kept(3), kCols * 2 / 3);
  EXPECT_EQ(kept(5), 0u);
}

TEST(SolveFixed, TiesArePrunedDeterministically) {
  const Matrix<float> w(8, 16, 0.5f);
  Matrix<float> h(16, 16, 0.0f);
  for (size_t j = 0; j < 16; ++j) h(j, j) = 1;
  FixedSettings settings = Plain();
  settings.sparsity.rate = 0.4;
  const FixedMatrix q = SolveFixed(w, h, Uniform(16, 16), settings, nullptr);
  uint64_t kept = 0;
  for (size_t p = 0; p < 16; ++p) {
    for (size_t r = 0; r < 8; ++r) {
      EXPECT_EQ(q.keep(r, p), p * 8 + r >= 52) << p << ' ' << r;  // the first 52 of 128 in column order
      kept += q.keep(r, p);
    }
  }
  EXPECT_EQ(kept, 76u);
}

TEST(SolveFixed, KeepsPatternsOfNInM) {
  const Matrix<float> w = GaussianWeights(kRows, 203, 25), h = CorrelatedMoments(203, 700, 26);
  for (const size_t m : {4, 8}) {
    for (const int passes : {0, 3}) {
      for (const std::vector<uint8_t>& widths : {Uniform(203, 4), Uniform(203, 16), Mixed(203)}) {
        FixedSettings settings;
        settings.group_size = 32;
        settings.refine_passes = passes;
        settings.sparsity = {0, static_cast<int>(m / 2), static_cast<int>(m)};
        const FixedMatrix q = SolveFixed(w, h, widths, settings, nullptr);
        ExpectValid(q);
        ExpectCells(q, m / 2, m);
      }
    }
  }
}

TEST(SolveFixed, PrunedWeightsAreZeroAndKeptOnesQuantised) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 27), h = CorrelatedMoments(kCols, 600, 28);
  FixedSettings settings;
  settings.sparsity.rate = 0.5;
  const FixedMatrix q = SolveFixed(w, h, Uniform(kCols, 3), settings, nullptr);
  const Matrix<float> values = Decoded(q);
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t p = 0; p < kCols; ++p) {
      if (q.keep(r, p) == 0) {
        ASSERT_EQ(values(r, q.order[p]), 0.0f);
      }
    }
  }
  EXPECT_GE(Zeros(values), static_cast<uint64_t>(kRows * kCols / 2));
}

// With independent channels of equal energy the score is |w| alone: the smallest half goes.
TEST(SolveFixed, PrunesTheSmallestWeightsOfIndependentChannels) {
  const Matrix<float> w = GaussianWeights(16, 64, 29);
  Matrix<float> h(64, 64, 0.0f);
  for (size_t j = 0; j < 64; ++j) h(j, j) = 2;
  FixedSettings settings;
  settings.sparsity.rate = 0.5;
  const FixedMatrix q = SolveFixed(w, h, Uniform(64, 16), settings, nullptr);
  float largest_pruned = 0, smallest_kept = 1;
  for (size_t r = 0; r < 16; ++r) {
    for (size_t p = 0; p < 64; ++p) {
      const float size = std::abs(w(r, q.order[p]));
      if (q.keep(r, p) == 0) largest_pruned = std::max(largest_pruned, size);
      if (q.keep(r, p) != 0) smallest_kept = std::min(smallest_kept, size);
    }
  }
  EXPECT_LE(largest_pruned, smallest_kept);
}

TEST(SolveFixed, RefinementImprovesMasks) {
  const Matrix<float> w = GaussianWeights(48, 192, 31), h = CorrelatedMoments(192, 1000, 32);
  for (const SparsityPattern sparsity : {SparsityPattern{0.5, 0, 0}, SparsityPattern{0, 2, 4}}) {
    for (const int bits : {4, 16}) {
      FixedSettings settings = Plain();
      settings.sparsity = sparsity;
      const double plain = Loss(w, SolveFixed(w, h, Uniform(192, bits), settings, nullptr), h);
      settings.refine_passes = 4;
      EXPECT_LT(Loss(w, SolveFixed(w, h, Uniform(192, bits), settings, nullptr), h), 0.9 * plain) << bits;
    }
  }
}

// Nothing that one step of refinement could do is left undone: no code one up or down lowers the loss.
TEST(SolveFixed, RefinementEndsWhereNoSingleCodeCanImprove) {
  const Matrix<float> w = GaussianWeights(3, 24, 33), h = CorrelatedMoments(24, 200, 34);
  FixedSettings settings;
  settings.damping = 0;
  settings.refine_passes = 1000;
  FixedMatrix q = SolveFixed(w, h, Uniform(24, 2), settings, nullptr);
  const double loss = Loss(w, q, h);
  for (size_t r = 0; r < 3; ++r) {
    for (size_t p = 0; p < 24; ++p) {
      for (const int step : {-1, 1}) {
        const uint16_t code = q.codes(r, p);
        if (code + step < 0 || code + step > 3) continue;
        q.codes(r, p) = static_cast<uint16_t>(code + step);
        EXPECT_GE(Loss(w, q, h), loss * (1 - 1e-6));
        q.codes(r, p) = code;
      }
    }
  }
}

// ---- order, dead channels, damping
// -------------------------------------------------------------------------------------

TEST(SolveFixed, OrdersByWidthThenEnergy) {
  const Matrix<float> w = GaussianWeights(4, 6, 35);
  Matrix<float> h(6, 6, 0.0f);
  const float energy[] = {1, 5, 3, 3, 9, 2};
  for (size_t j = 0; j < 6; ++j) h(j, j) = energy[j];
  const FixedMatrix q = SolveFixed(w, h, {2, 4, 4, 4, 2, 0}, {}, nullptr);
  EXPECT_EQ(q.order, (std::vector<uint32_t>{1, 2, 3, 4, 0, 5}));
  EXPECT_EQ(q.widths, (std::vector<uint8_t>{4, 4, 4, 2, 2, 0}));
}

TEST(SolveFixed, PrunesColumnsOfWidthZeroWithFeedback) {
  const Matrix<float> w = GaussianWeights(24, 60, 36), h = CorrelatedMoments(60, 400, 37);
  std::vector<uint8_t> widths = Uniform(60, 8);
  for (size_t j = 0; j < 60; j += 3) widths[j] = 0;
  const Matrix<float> q = Decoded(SolveFixed(w, h, widths, {}, nullptr));
  Matrix<float> cut = w.Clone();
  for (size_t r = 0; r < 24; ++r) {
    for (size_t j = 0; j < 60; j += 3) {
      EXPECT_EQ(q(r, j), 0.0f);
      cut(r, j) = 0;
    }
  }
  EXPECT_LT(LossBetween(w, q, h), 0.6 * LossBetween(w, cut, h));  // the other columns take over
}

TEST(SolveFixed, DeadChannelsBecomeZero) {
  const size_t cols = 40;
  const Matrix<float> w = GaussianWeights(10, cols, 38);
  Matrix<float> h = CorrelatedMoments(cols, 300, 39);
  for (const size_t dead : {3, 17, 39}) {
    for (size_t j = 0; j < cols; ++j) h(dead, j) = h(j, dead) = 0;
  }
  for (const SparsityPattern sparsity :
       {SparsityPattern{}, SparsityPattern{0.5, 0, 0}, SparsityPattern{0, 2, 4}}) {
    for (const std::vector<uint8_t>& widths : {Uniform(cols, 4), Mixed(cols)}) {
      FixedSettings settings;
      settings.sparsity = sparsity;
      SolverReport report;
      const FixedMatrix q = SolveFixed(w, h, widths, settings, &report);
      ExpectValid(q);
      const Matrix<float> values = Decoded(q);
      EXPECT_EQ(report.dead_channels, 3u);
      for (size_t r = 0; r < 10; ++r) {
        for (const size_t dead : {3, 17, 39}) ASSERT_EQ(values(r, dead), 0.0f);
      }
      EXPECT_NEAR(report.measured_loss, LossBetween(w, values, h), 1e-4 * report.measured_loss);
    }
  }
  // All of them.
  const Matrix<float> nothing(cols, cols, 0.0f);
  SolverReport report;
  EXPECT_EQ(Zeros(Decoded(SolveFixed(w, nothing, Uniform(cols, 3), {}, &report))), 10 * cols);
  EXPECT_EQ(report.dead_channels, cols);
  EXPECT_EQ(report.relative_error, 0);
}

TEST(SolveFixed, RaisesTheDampingOfIndefiniteMoments) {
  const Matrix<float> w = GaussianWeights(10, 30, 40);
  Matrix<float> h = CorrelatedMoments(30, 300, 41);
  const float bound = std::sqrt(h(2, 2) * h(9, 9));
  h(2, 9) = h(9, 2) = 1.5f * bound;  // no two channels can be that much alike
  SolverReport report;
  const FixedMatrix q = SolveFixed(w, h, Uniform(30, 4), {}, &report);
  ExpectValid(q);
  EXPECT_GT(report.damping_doublings, 0);
  EXPECT_GT(report.damping, 0.01);

  // Fewer tokens than channels, no damping asked for: singular.
  const Matrix<float> singular = CorrelatedMoments(30, 12, 42);
  FixedSettings settings;
  settings.damping = 0;
  ExpectValid(SolveFixed(w, singular, Uniform(30, 4), settings, &report));
  EXPECT_GT(report.damping_doublings, 0);
  EXPECT_TRUE(std::isfinite(report.measured_loss));
}

template <typename Function>
std::string MessageOf(const Function& function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(SolveFixed, RefusesWhatItCannotUse) {
  Matrix<float> w = GaussianWeights(4, 8, 43), h = CorrelatedMoments(8, 100, 44);
  const auto solve = [&](const FixedSettings& settings, int bits = 4) {
    SolveFixed(w, h, Uniform(8, bits), settings, nullptr);
  };
  FixedSettings settings;
  settings.sparsity.rate = 1.0;
  EXPECT_NE(MessageOf([&] { solve(settings); }).find("sparsity is 1"), std::string::npos);
  settings.sparsity = {0, 1, 3};
  EXPECT_NE(MessageOf([&] { solve(settings); }).find("1:3"), std::string::npos);
  settings = {};
  settings.damping = -1;
  EXPECT_NE(MessageOf([&] { solve(settings); }).find("damping is -1"), std::string::npos);
  settings = {};
  settings.group_size = 0;
  EXPECT_NE(MessageOf([&] { solve(settings); }), "");
  EXPECT_NE(MessageOf([&] { solve({}, 5); }).find("width 5"), std::string::npos);
  EXPECT_NE(MessageOf([&] { RoundToNearest(w, 5, 128); }).find("width 5"), std::string::npos);
  EXPECT_NE(MessageOf([&] { RoundToNearest(w, 0, 128); }), "");
  h(3, 5) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(MessageOf([&] { solve({}); }).find("second moments: row 3, column 5"), std::string::npos);
  h(3, 5) = 0;
  w(1, 2) = std::numeric_limits<float>::infinity();
  EXPECT_NE(MessageOf([&] { solve({}); }).find("weights: row 1, column 2"), std::string::npos);
}

// ---- determinism, rounding to nearest
// ------------------------------------------------------------------------------------

TEST(SolveFixed, DoesNotDependOnThreads) {
  const size_t rows = 150, cols = 420;
  const Matrix<float> w = GaussianWeights(rows, cols, 45), h = CorrelatedMoments(cols, 500, 46);
  for (const SparsityPattern sparsity :
       {SparsityPattern{}, SparsityPattern{0.5, 0, 0}, SparsityPattern{0, 4, 8}}) {
    FixedMatrix results[2];
    SolverReport reports[2];
    for (const int threads : {1, 2}) {
      const Threading threading(threads);
      FixedSettings settings;
      settings.sparsity = sparsity;
      results[threads - 1] = SolveFixed(w, h, Mixed(cols), settings, &reports[threads - 1]);
    }
    EXPECT_TRUE(Same(results[0].codes, results[1].codes));
    EXPECT_TRUE(Same(results[0].keep, results[1].keep));
    EXPECT_TRUE(Same(results[0].scales, results[1].scales));
    EXPECT_TRUE(Same(results[0].zeros, results[1].zeros));
    EXPECT_EQ(reports[0].predicted_loss, reports[1].predicted_loss);
    EXPECT_EQ(reports[0].measured_loss, reports[1].measured_loss);
  }
}

TEST(RoundToNearest, TakesTheNearestPointOfEachGroupsGrid) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 47);
  double previous = std::numeric_limits<double>::infinity();
  for (const int bits : {2, 3, 4, 6, 8, 16}) {
    const FixedMatrix q = RoundToNearest(w, bits, 50);
    ExpectValid(q);
    EXPECT_EQ(q.mask, MaskKind::kNone);
    for (uint32_t j = 0; j < kCols; ++j) ASSERT_EQ(q.order[j], j);
    const Matrix<float> values = Decoded(q);
    double error = 0;
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t j = 0; j < kCols; ++j) {
        error += std::pow(double{w(r, j)} - values(r, j), 2);
        if (bits == 16) {
          ASSERT_EQ(values(r, j), ToFloat(ToF16(w(r, j))));
          continue;
        }
        const float scale = ToFloat(q.scales(j / 50, r)) * std::ldexp(1.0f, q.exponent);
        const int zero = q.zeros(j / 50, r);
        for (int code = 0; code < 1 << bits; ++code) {
          ASSERT_LE(std::abs(w(r, j) - values(r, j)),
                    std::abs(w(r, j) - scale * static_cast<float>(code - zero)) + 1e-7f);
        }
      }
    }
    EXPECT_LT(error, 0.4 * previous) << bits;
    previous = error;
  }
}

}  // namespace
}  // namespace mica
