#include "compress/budget/sparsity_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/threads.h"
#include "compress/curvature/score_histogram.h"

namespace mica {
namespace {

Matrix<float> Gaussian(size_t rows, size_t cols, uint32_t seed, float size = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, size);
  Matrix<float> w(rows, cols);
  for (size_t i = 0; i < w.size(); ++i) w.data()[i] = normal(generator);
  return w;
}

// A matrix with a Gaussian column of each of these standard deviations.
Matrix<float> Columns(size_t rows, const std::vector<float>& sizes, uint32_t seed) {
  Matrix<float> w = Gaussian(rows, sizes.size(), seed);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < sizes.size(); ++c) w(r, c) *= sizes[c];
  }
  return w;
}

PruningDemand Demand(const Matrix<float>& w, double sensitivity) {
  PruningDemand demand;
  demand.rows = w.rows();
  demand.score_shares = ScoreShares(w, std::vector<float>(w.rows(), 1.0f));
  demand.column_score.assign(w.cols(), 0.0);
  for (size_t r = 0; r < w.rows(); ++r) {
    for (size_t c = 0; c < w.cols(); ++c)
      demand.column_score[c] += sensitivity * w(r, c) * w(r, c) / static_cast<double>(w.rows());
  }
  return demand;
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST(RowImportance, IsFisherInformationHalfWayToItsMean) {
  EXPECT_EQ(RowImportance({0, 1, 2}), (std::vector<float>{0.5f, 1.0f, 1.5f}));
  EXPECT_EQ(RowImportance({0, 0}), (std::vector<float>{1.0f, 1.0f}));
}

TEST(ScoreShares, CountEachWeightByItsRatioToTheColumn) {
  Matrix<float> w(4, 2, 0.0f);
  for (size_t r = 0; r < 4; ++r) w(r, 0) = 1;  // all at ratio 1: bin 128, [2^0, 2^(1/4))
  w(0, 1) = 2;                                 // ratio 4: two octaves up; the rest are zero
  const std::vector<double> shares = ScoreShares(w, {1, 1, 1, 1});
  ASSERT_EQ(shares.size(), 192u);
  EXPECT_DOUBLE_EQ(shares[128], 0.5);
  EXPECT_DOUBLE_EQ(shares[136], 0.125);
  EXPECT_DOUBLE_EQ(shares[0], 0.375);
}

TEST(ScoreShares, DoNotDependOnThreads) {
  const Matrix<float> w = Gaussian(300, 70, 1);
  const std::vector<float> importance(300, 1.0f);
  SetThreads(1);
  const std::vector<double> one = ScoreShares(w, importance);
  SetThreads(3);
  EXPECT_EQ(ScoreShares(w, importance), one);
  SetThreads(0);
}

TEST(PrunedShares, MeetTheMeanExactly) {
  const std::vector<PruningDemand> demands = {Demand(Gaussian(200, 60, 2), 1.0),
                                              Demand(Gaussian(100, 30, 3), 5.0),
                                              Demand(Gaussian(400, 20, 4), 0.2)};
  for (const double rate : {0.0, 0.1, 0.5, 0.9, 0.999}) {
    const auto shares = PrunedShares(demands, rate);
    double pruned = 0, all = 0;
    for (size_t m = 0; m < demands.size(); ++m) {
      for (const double share : shares[m]) {
        EXPECT_GE(share, 0);
        EXPECT_LE(share, 1);
        pruned += share * static_cast<double>(demands[m].rows);
      }
      all += static_cast<double>(demands[m].rows * shares[m].size());
    }
    EXPECT_NEAR(pruned / all, rate, 1e-9);
  }
}

TEST(PrunedShares, AreThoseOfOneThreshold) {
  // Scores of all weights against one threshold, counted weight by weight.
  const std::vector<Matrix<float>> weights = [] {
    std::vector<Matrix<float>> list;
    list.push_back(Columns(4000, {1.0f, 0.5f, 2.0f}, 5));
    list.push_back(Columns(4000, {1.0f, 0.1f}, 6));
    return list;
  }();
  const double sensitivity[] = {1.0, 3.0};
  std::vector<double> scores;
  std::vector<PruningDemand> demands;
  for (size_t m = 0; m < 2; ++m) {
    demands.push_back(Demand(weights[m], sensitivity[m]));
    for (size_t i = 0; i < weights[m].size(); ++i)
      scores.push_back(sensitivity[m] * weights[m].data()[i] * weights[m].data()[i]);
  }
  std::nth_element(scores.begin(), scores.begin() + static_cast<std::ptrdiff_t>(scores.size() / 2),
                   scores.end());
  const double threshold = scores[scores.size() / 2];
  const auto shares = PrunedShares(demands, 0.5);
  for (size_t m = 0; m < 2; ++m) {
    for (size_t c = 0; c < weights[m].cols(); ++c) {
      double below = 0;
      for (size_t r = 0; r < 4000; ++r)
        below += sensitivity[m] * weights[m](r, c) * weights[m](r, c) < threshold ? 1.0 / 4000 : 0.0;
      EXPECT_NEAR(shares[m][c], below, 0.03) << m << ' ' << c;
    }
  }
}

TEST(PrunedShares, TakeMoreWhereLessIsLost) {
  const Matrix<float> w = Gaussian(500, 40, 7);
  const auto shares = PrunedShares({Demand(w, 1.0), Demand(w, 16.0)}, 0.5);
  // Of a Gaussian, 50 % over both at a ratio of 4 between the thresholds on |w|: P(|w| < t) + P(|w| < t / 4)
  // = 1.
  EXPECT_NEAR(Mean(shares[0]), 0.766, 0.02);
  EXPECT_NEAR(Mean(shares[1]), 0.234, 0.02);
}

TEST(PrunedShares, WithoutHistogramsAreTheRateItself) {
  PruningDemand demand{8, {1.0, 2.0, 3.0}, {}};
  EXPECT_EQ(PrunedShares({demand}, 0.4), (std::vector<std::vector<double>>{{0.4, 0.4, 0.4}}));
}

TEST(PrunedShares, TakeColumnsOfZerosFirst) {
  Matrix<float> w = Gaussian(100, 10, 8);
  for (size_t r = 0; r < 100; ++r) w(r, 3) = 0;
  const auto shares = PrunedShares({Demand(w, 1.0)}, 0.3);
  EXPECT_DOUBLE_EQ(shares[0][3], 1.0);
  EXPECT_NEAR(Mean(shares[0]), 0.3, 1e-9);
}

}  // namespace
}  // namespace mica
