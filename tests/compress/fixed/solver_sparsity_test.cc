// Which weights SolveFixed prunes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "compress/budget/sparsity_plan.h"
#include "compress/fixed/plan.h"
#include "format/mask/sparsity_pattern.h"
#include "tests/compress/fixed/solved.h"

namespace mica {
namespace {

void ExpectCells(const FixedMatrix& m, size_t kept, size_t cols) {
  size_t coded = 0;
  while (coded < m.cols && m.widths[coded] != 0) ++coded;
  for (size_t p = 0; p + cols <= coded; p += cols) {  // consecutive columns of the original
    ASSERT_EQ(m.order[p] % cols, 0u) << p;
    for (size_t i = 1; i < cols; ++i) ASSERT_EQ(m.order[p + i], m.order[p] + i) << p;
  }
  for (size_t r = 0; r < m.rows; ++r) {
    for (size_t p = 0; p + cols <= coded; p += cols) {
      ASSERT_EQ(static_cast<size_t>(std::accumulate(m.keep.row(r) + p, m.keep.row(r) + p + cols, 0)), kept)
          << r << ' ' << p;
    }
  }
}

TEST(SolveFixed, MeetsTheRateExactly) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 21), h = CorrelatedMoments(kCols, 600, 22);
  for (const double rate : {0.01, 0.3, 0.5, 0.77, 0.99}) {
    for (const int passes : {0, 3}) {
      FixedOptions settings;
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
  FixedOptions settings;
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
    FixedOptions settings;
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
  FixedOptions settings;
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
  FixedOptions settings = Plain();
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
      for (const std::vector<uint8_t>& widths :
           {Uniform(203, 4), Uniform(203, 16),
            Mixed(203, {0, static_cast<int>(m / 2), static_cast<int>(m)})}) {
        FixedOptions settings;
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
  FixedOptions settings;
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
  FixedOptions settings;
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
      FixedOptions settings = Plain();
      settings.sparsity = sparsity;
      const double plain = Loss(w, SolveFixed(w, h, Uniform(192, bits), settings, nullptr), h);
      settings.refine_passes = 4;
      EXPECT_LT(Loss(w, SolveFixed(w, h, Uniform(192, bits), settings, nullptr), h), 0.9 * plain) << bits;
    }
  }
}

}  // namespace
}  // namespace mica
