#include "compress/fixed/solver.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "base/threads.h"
#include "format/mask/sparsity_pattern.h"
#include "tests/compress/fixed/solved.h"
#include "tests/error_message.h"

namespace mica {
namespace {

template <typename T>
bool Same(const Matrix<T>& a, const Matrix<T>& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

struct Threading {
  explicit Threading(int threads) { SetThreads(threads); }
  ~Threading() { SetThreads(0); }
};
TEST(SolveFixed, PredictsItsLossAtZeroDamping) {
  const Matrix<float> w = GaussianWeights(kRows, kCols, 3), h = CorrelatedMoments(kCols, 800, 4);
  for (const int passes : {0, 3}) {
    for (const SparsityPattern sparsity :
         {SparsityPattern{}, SparsityPattern{0.5, 0, 0}, SparsityPattern{0, 2, 4}}) {
      FixedOptions settings;
      settings.damping = 0;
      settings.group_size = 32;
      settings.refine_passes = passes;
      settings.sparsity = sparsity;
      SolverReport report;
      const FixedMatrix q = SolveFixed(w, h, Mixed(kCols, sparsity), settings, &report);
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
    FixedOptions settings = Plain();
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
    FixedOptions settings = Plain();
    settings.search_rounds = 0;
    const double plain = Loss(w, SolveFixed(w, h, Uniform(256, bits), settings, nullptr), h);
    settings.search_rounds = 3;
    const double searched = Loss(w, SolveFixed(w, h, Uniform(256, bits), settings, nullptr), h);
    settings.refine_passes = 4;
    const double refined = Loss(w, SolveFixed(w, h, Uniform(256, bits), settings, nullptr), h);
    EXPECT_LT(plain, 0.6 * rounded) << bits;
    EXPECT_LT(searched, 0.985 * plain) << bits;
    EXPECT_LT(refined, 0.999 * searched) << bits;
  }
}

TEST(SolveFixed, InBlocksOfRowsIsTheSameMatrix) {
  Matrix<float> w = GaussianWeights(150, kCols, 9);
  for (size_t c = 0; c < kCols; ++c) w(120, c) *= 7;  // what a block alone would take another exponent for
  const Matrix<float> h = CorrelatedMoments(kCols, 700, 10);
  const DampedFactor factor(h, {}, 0.03);
  for (const bool exponents : {false, true}) {
    FixedSolverSettings settings;
    settings.group_size = 64;
    if (exponents) {
      settings.col_exponents.assign(kCols, 0);
      settings.col_exponents[5] = 4;
    }
    SolverReport of_all, of_blocks;
    const PackedMatrix all = SolveFixedThere(w, h, factor, Uniform(kCols, 3), settings, &of_all).Packed();
    const PackedMatrix blocks = SolveFixedInBlocks(w, h, factor, Uniform(kCols, 3), settings, 64, &of_blocks);
    ASSERT_EQ(all.parts.size(), blocks.parts.size());
    for (size_t p = 0; p < all.parts.size(); ++p) {
      EXPECT_EQ(all.parts[p].shape, blocks.parts[p].shape);
      EXPECT_EQ(all.parts[p].bytes, blocks.parts[p].bytes) << p;
    }
    EXPECT_EQ(std::get<FixedFacts>(all.facts).exponent, std::get<FixedFacts>(blocks.facts).exponent);
    EXPECT_EQ(std::get<FixedFacts>(all.facts).rows, std::get<FixedFacts>(blocks.facts).rows);
    EXPECT_NEAR(of_blocks.measured_loss, of_all.measured_loss, 1e-5 * of_all.measured_loss);
    EXPECT_NEAR(of_blocks.relative_error, of_all.relative_error, 1e-5 * of_all.relative_error);
  }
}

// Nothing that one step of refinement could do is left undone: no code one up or down lowers the loss.
TEST(SolveFixed, RefinementEndsWhereNoSingleCodeCanImprove) {
  const Matrix<float> w = GaussianWeights(3, 24, 33), h = CorrelatedMoments(24, 200, 34);
  FixedOptions settings;
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
    for (const std::vector<uint8_t>& widths : {Uniform(cols, 4), Mixed(cols, sparsity)}) {
      FixedOptions settings;
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
  FixedOptions settings;
  settings.damping = 0;
  ExpectValid(SolveFixed(w, singular, Uniform(30, 4), settings, &report));
  EXPECT_GT(report.damping_doublings, 0);
  EXPECT_TRUE(std::isfinite(report.measured_loss));
}

TEST(SolveFixed, RefusesWhatItCannotUse) {
  Matrix<float> w = GaussianWeights(4, 8, 43), h = CorrelatedMoments(8, 100, 44);
  const auto solve = [&](const FixedOptions& settings, int bits = 4) {
    SolveFixed(w, h, Uniform(8, bits), settings, nullptr);
  };
  FixedOptions settings;
  settings.sparsity.rate = 1.0;
  EXPECT_NE(MessageOf([&] { solve(settings); }).find("sparsity is 1"), std::string::npos);
  settings.sparsity = {0, 1, 3};
  EXPECT_NE(MessageOf([&] { solve(settings); }).find("1:3"), std::string::npos);
  settings = {};
  settings.group_size = 0;
  EXPECT_NE(MessageOf([&] { solve(settings); }), "");
  EXPECT_NE(MessageOf([&] { solve({}, 5); }).find("width 5"), std::string::npos);
  EXPECT_NE(MessageOf([&] { RoundToNearest(w, 5, 128); }).find("width 5"), std::string::npos);
  EXPECT_NE(MessageOf([&] { RoundToNearest(w, 0, 128); }), "");
  h(3, 5) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(MessageOf([&] { solve({}); }).find("row 3, column 5"), std::string::npos);
  h(3, 5) = 0;
  w(1, 2) = std::numeric_limits<float>::infinity();
  EXPECT_NE(MessageOf([&] { solve({}); }).find("weights: row 1, column 2"), std::string::npos);
}

TEST(SolveFixed, DoesNotDependOnThreads) {
  const size_t rows = 150, cols = 420;
  const Matrix<float> w = GaussianWeights(rows, cols, 45), h = CorrelatedMoments(cols, 500, 46);
  for (const SparsityPattern sparsity :
       {SparsityPattern{}, SparsityPattern{0.5, 0, 0}, SparsityPattern{0, 4, 8}}) {
    FixedMatrix results[2];
    SolverReport reports[2];
    for (const int threads : {1, 2}) {
      const Threading threading(threads);
      FixedOptions settings;
      settings.sparsity = sparsity;
      results[threads - 1] = SolveFixed(w, h, Mixed(cols, sparsity), settings, &reports[threads - 1]);
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
