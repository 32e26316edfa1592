#include "compress/inform/information.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/threads.h"
#include "compress/calibrate/moments.h"
#include "compress/curvature/damped_factor.h"
#include "ops/linalg/linalg.h"
#include "tests/error_message.h"

namespace mica {
namespace {

std::vector<double> ConditionalInformation(MatrixView<const float> h, double damping) {
  return DampedFactor(h, {}, damping).Information(h);
}

double GaussianClosedForm(double rho) { return -0.5 * std::log(1 - rho * rho); }

// Columns: a unit Gaussian, then one of correlation rho with it for each of rhos.
Matrix<float> CorrelatedGaussians(size_t tokens, const std::vector<double>& rhos, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  Matrix<float> sample(tokens, rhos.size() + 1);
  for (size_t t = 0; t < tokens; ++t) {
    const double x = normal(random);
    sample(t, 0) = static_cast<float>(x);
    for (size_t c = 0; c < rhos.size(); ++c) {
      sample(t, c + 1) = static_cast<float>(rhos[c] * x + std::sqrt(1 - rhos[c] * rhos[c]) * normal(random));
    }
  }
  return sample;
}

void ExpectEqual(const Matrix<float>& a, const Matrix<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(a.data()[i], b.data()[i]) << i;
}

TEST(Information, NamesOfEstimatorsGoBothWays) {
  for (const Estimator estimator :
       {Estimator::kGaussian, Estimator::kCopula, Estimator::kHistogram, Estimator::kKnn}) {
    EXPECT_EQ(ParseEstimator(EstimatorName(estimator)), estimator);
  }
  EXPECT_THAT(MessageOf([] { ParseEstimator("parzen"); }),
              testing::HasSubstr("\"parzen\" is unknown, expected gaussian, copula"));
}

TEST(GaussianInformation, FromMomentsRecoversKnownCorrelations) {
  const Matrix<float> sample = CorrelatedGaussians(20000, {0.3, 0.6, 0.9}, 1);
  Moments moments(4);
  moments.Add(sample);
  Matrix<float> information = moments.SecondMoment();
  GaussianInformation(information, moments.Mean(), information);
  EXPECT_NEAR(information(0, 1), GaussianClosedForm(0.3), 0.01);
  EXPECT_NEAR(information(0, 2), GaussianClosedForm(0.6), 0.02);
  EXPECT_NEAR(information(0, 3), GaussianClosedForm(0.9), 0.03);
  EXPECT_NEAR(information(1, 2), GaussianClosedForm(0.18), 0.01);
}

// ---- estimators on a sample
// ------------------------------------------------------------------------------------------------------------

struct EstimatorCase {
  Estimator estimator;
  size_t tokens;
  double tolerance;  // nats, at rho 0.3 and 0.6
  double bias;       // expected shortfall at rho 0.9 (finite bins), nats
  double floor;      // what independent pairs may show
  double copies;     // least information of a channel with its copy
};

class Estimators : public testing::TestWithParam<EstimatorCase> {
 protected:
  static Matrix<float> Estimate(const Matrix<float>& sample, uint64_t seed = 0) {
    return SampledInformation(sample, GetParam().estimator, seed);
  }
};

// Tolerances are about three standard deviations of each estimator at its number of tokens.
INSTANTIATE_TEST_SUITE_P(All, Estimators,
                         testing::Values(EstimatorCase{Estimator::kGaussian, 8192, 0.025, 0.0, 0.001, 7.0},
                                         EstimatorCase{Estimator::kCopula, 8192, 0.025, 0.0, 0.001, 7.0},
                                         EstimatorCase{Estimator::kHistogram, 4096, 0.045, 0.06, 0.02, 2.5},
                                         EstimatorCase{Estimator::kKnn, 512, 0.12, 0.0, 0.12, 3.5}),
                         [](const auto& info) { return EstimatorName(info.param.estimator); });

TEST_P(Estimators, RecoverTheInformationOfGaussianPairs) {
  const Matrix<float> information = Estimate(CorrelatedGaussians(GetParam().tokens, {0.3, 0.6, 0.9}, 2));
  EXPECT_NEAR(information(0, 1), GaussianClosedForm(0.3), GetParam().tolerance);
  EXPECT_NEAR(information(0, 2), GaussianClosedForm(0.6), GetParam().tolerance);
  EXPECT_NEAR(information(0, 3), GaussianClosedForm(0.9) - GetParam().bias, GetParam().tolerance);
}

TEST_P(Estimators, SeeNothingBetweenIndependentChannels) {
  const Matrix<float> information =
      Estimate(CorrelatedGaussians(GetParam().tokens, {0, 0, 0, 0, 0, 0, 0}, 3));
  double mean = 0;
  for (size_t i = 0; i < 8; ++i) {
    for (size_t j = 0; j < 8; ++j) {
      EXPECT_GE(information(i, j), 0);
      EXPECT_LT(information(i, j), GetParam().floor) << i << ", " << j;
      mean += information(i, j) / 56;
    }
  }
  EXPECT_LT(mean, GetParam().floor / 3);
}

TEST_P(Estimators, SeeMuchBetweenCopies) {
  Matrix<float> sample = CorrelatedGaussians(GetParam().tokens, {0, 0}, 4);
  for (size_t t = 0; t < sample.rows(); ++t) sample(t, 1) = -3.0f * sample(t, 0) + 7.0f;
  const Matrix<float> information = Estimate(sample);
  EXPECT_GT(information(0, 1), GetParam().copies);
  EXPECT_LT(information(0, 1), 7.72);
  EXPECT_LT(information(0, 2), GetParam().floor);
}

TEST_P(Estimators, AreSymmetricWithAZeroDiagonal) {
  const Matrix<float> information = Estimate(CorrelatedGaussians(GetParam().tokens / 2, {0.5, 0.7, -0.6}, 5));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(information(i, i), 0);
    for (size_t j = 0; j < 4; ++j) EXPECT_EQ(information(i, j), information(j, i));
  }
}

TEST_P(Estimators, TakeConstantChannelsAsUninformative) {
  Matrix<float> sample = CorrelatedGaussians(GetParam().tokens / 4, {0.9, 0.5}, 6);
  for (size_t t = 0; t < sample.rows(); ++t) sample(t, 2) = 3.25f;
  const Matrix<float> information = Estimate(sample);
  EXPECT_EQ(information(0, 2), 0);
  EXPECT_EQ(information(2, 1), 0);
  EXPECT_GT(information(0, 1), 0.5);
}

TEST_P(Estimators, DoNotDependOnTheNumberOfThreads) {
  const Matrix<float> sample = CorrelatedGaussians(GetParam().tokens + 100, std::vector<double>(70, 0.4), 7);
  const int before = Threads();
  SetThreads(1);
  const Matrix<float> one = Estimate(sample, 9);
  SetThreads(3);
  const Matrix<float> three = Estimate(sample, 9);
  SetThreads(before);
  ExpectEqual(one, three);
}

TEST_P(Estimators, TakeASeededChoiceOfALongSample) {
  EXPECT_EQ(SampleTokens(GetParam().estimator), GetParam().tokens);
  const Matrix<float> sample = CorrelatedGaussians(3 * GetParam().tokens, {0.6}, 8);
  const Matrix<float> first = Estimate(sample, 1), again = Estimate(sample, 1), other = Estimate(sample, 2);
  EXPECT_EQ(first(0, 1), again(0, 1));
  EXPECT_NE(first(0, 1), other(0, 1));
  EXPECT_NEAR(first(0, 1), other(0, 1), 2 * GetParam().tolerance);
}

TEST_P(Estimators, RefuseShortSamplesAndValuesThatAreNotFinite) {
  EXPECT_THAT(MessageOf([] { Estimate(Matrix<float>(63, 2, 1.0f)); }),
              testing::HasSubstr("a sample of 63 tokens, expected at least 64"));
  Matrix<float> sample = CorrelatedGaussians(64, {0.5, 0.5}, 9);
  sample(40, 2) = std::numeric_limits<float>::infinity();
  EXPECT_THAT(MessageOf([&] { Estimate(sample); }),
              testing::HasSubstr("channel 2 is inf at sampled token 40"));
}

// Strictly monotone maps keep the ranks, so copula and histogram must not change at all; a falling map
// mirrors them.
TEST(SampledInformation, CopulaIsExactlyInvariantUnderMonotoneMaps) {
  const Matrix<float> sample = CorrelatedGaussians(2000, {0.3, 0.8, -0.5}, 10);
  Matrix<float> mapped = sample.Clone();
  for (size_t t = 0; t < sample.rows(); ++t) {
    mapped(t, 0) = std::exp(sample(t, 0));
    mapped(t, 1) = 4.0f * sample(t, 1);
    mapped(t, 2) = -sample(t, 2);
    mapped(t, 3) = sample(t, 3) > 0 ? 1000 * sample(t, 3) : sample(t, 3);
  }
  ExpectEqual(SampledInformation(mapped, Estimator::kCopula, 0),
              SampledInformation(sample, Estimator::kCopula, 0));
  const Matrix<float> raw = SampledInformation(mapped, Estimator::kGaussian, 0);
  EXPECT_GT(std::abs(raw(0, 1) - SampledInformation(sample, Estimator::kGaussian, 0)(0, 1)), 0.003);
}

TEST(SampledInformation, CopulaOfExpWouldBeLostOnTheGaussianFormula) {
  Matrix<float> sample = CorrelatedGaussians(8192, {0.9}, 11);
  for (size_t t = 0; t < sample.rows(); ++t)
    sample(t, 1) = std::exp(3.0f * sample(t, 1));  // heavy tail, as outlier channels
  EXPECT_NEAR(SampledInformation(sample, Estimator::kCopula, 0)(0, 1), GaussianClosedForm(0.9), 0.03);
  EXPECT_LT(SampledInformation(sample, Estimator::kGaussian, 0)(0, 1), 0.3);
}

// What the Gaussian formula cannot see and the other two can: y = |x|, correlation 0.
TEST(SampledInformation, HistogramAndNeighboursSeeDependenceWithoutCorrelation) {
  Matrix<float> sample = CorrelatedGaussians(4096, {0.0}, 12);
  for (size_t t = 0; t < sample.rows(); ++t) sample(t, 1) = std::abs(sample(t, 0));
  EXPECT_LT(SampledInformation(sample, Estimator::kGaussian, 0)(0, 1), 0.01);
  EXPECT_GT(SampledInformation(sample, Estimator::kHistogram, 0)(0, 1), 1.5);
  EXPECT_GT(SampledInformation(sample, Estimator::kKnn, 0)(0, 1), 1.5);
}

// 64 tokens make 2 bins a channel; cells worked by hand: 24 8 / 8 24.
TEST(SampledInformation, HistogramIsWhatOneWorksOutByHand) {
  Matrix<float> sample(64, 2);
  for (size_t t = 0; t < 64; ++t) {
    sample(t, 0) = static_cast<float>(t);
    const bool upper = t < 32 ? t >= 24 : t >= 40;
    sample(t, 1) =
        static_cast<float>(t % 8) + (upper ? 100.0f + static_cast<float>(t) : static_cast<float>(t) / 100);
  }
  const double plug_in = 2 * (0.375 * std::log(0.375 / 0.25) + 0.125 * std::log(0.125 / 0.25));
  const double correction = (1.0 + 1.0 - 3.0) / (2 * 64.0);
  EXPECT_NEAR(SampledInformation(sample, Estimator::kHistogram, 0)(0, 1), plug_in + correction, 1e-6);
}

double Digamma(size_t n) {
  double value = -0.5772156649015329;
  for (size_t i = 1; i < n; ++i) value += 1.0 / static_cast<double>(i);
  return value;
}

// The definition with two loops over all tokens, on unit variance without jitter (the values are distinct).
double KnnOracle(const Matrix<float>& sample) {
  constexpr size_t k = 4;
  const size_t n = sample.rows();
  std::vector<std::vector<double>> z(2, std::vector<double>(n));
  for (size_t c = 0; c < 2; ++c) {
    double mean = 0, variance = 0;
    for (size_t t = 0; t < n; ++t) mean += sample(t, c) / static_cast<double>(n);
    for (size_t t = 0; t < n; ++t)
      variance += (sample(t, c) - mean) * (sample(t, c) - mean) / static_cast<double>(n);
    for (size_t t = 0; t < n; ++t) z[c][t] = (sample(t, c) - mean) / std::sqrt(variance);
  }
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    std::vector<double> distances;
    for (size_t j = 0; j < n; ++j) {
      if (j != i) distances.push_back(std::max(std::abs(z[0][i] - z[0][j]), std::abs(z[1][i] - z[1][j])));
    }
    std::nth_element(distances.begin(), distances.begin() + (k - 1), distances.end());
    for (size_t c = 0; c < 2; ++c) {
      size_t within = 0;
      for (size_t j = 0; j < n; ++j) within += j != i && std::abs(z[c][i] - z[c][j]) < distances[k - 1];
      sum += Digamma(within + 1);
    }
  }
  return Digamma(k) + Digamma(n) - sum / static_cast<double>(n);
}

TEST(SampledInformation, NeighboursAgreeWithTheDefinition) {
  for (const double rho : {0.5, 0.95, -0.8}) {
    for (const size_t tokens : {64, 333}) {
      const Matrix<float> sample = CorrelatedGaussians(tokens, {rho}, 13);
      EXPECT_NEAR(SampledInformation(sample, Estimator::kKnn, 0)(0, 1), KnnOracle(sample), 2e-3)
          << rho << ", " << tokens;
    }
  }
}

// BF16 activations have many equal values; the jitter must keep independent channels independent.
TEST(SampledInformation, NeighboursBearEqualValues) {
  Matrix<float> sample = CorrelatedGaussians(512, {0.0, 0.9}, 14);
  for (size_t i = 0; i < sample.size(); ++i) sample.data()[i] = std::round(sample.data()[i] * 8.0f) / 8.0f;
  const Matrix<float> information = SampledInformation(sample, Estimator::kKnn, 0);
  EXPECT_LT(information(0, 1), 0.15);
  EXPECT_NEAR(information(0, 2), GaussianClosedForm(0.9), 0.15);
}

TEST(SampledInformation, NeighboursNameTheirLimit) {
  EXPECT_THAT(
      MessageOf([] { SampledInformation(Matrix<float>(64, kKnnMaxChannels + 1, 1.0f), Estimator::kKnn, 0); }),
      testing::AllOf(testing::HasSubstr("4097 channels, at most 4096"), testing::HasSubstr("use copula")));
}

// ---- one channel with all the others
// ----------------------------------------------------------------------------------------------------

TEST(ConditionalInformation, IsWhatOneWorksOutByHand) {
  // 2 x 2 of correlation 0.6: both channels have -1/2 ln(1 - 0.36).
  Matrix<float> two(2, 2);
  two(0, 0) = 4, two(0, 1) = two(1, 0) = 3.6f, two(1, 1) = 9;
  EXPECT_THAT(ConditionalInformation(two, 0),
              testing::Each(testing::DoubleNear(-0.5 * std::log(0.64), 1e-6)));
  // 3 x 3: H = [2 1 0; 1 2 1; 0 1 2], det 4, cofactors 3, 4, 3 on the diagonal.
  Matrix<float> three(3, 3, 0.0f);
  for (size_t i = 0; i < 3; ++i) three(i, i) = 2;
  three(0, 1) = three(1, 0) = three(1, 2) = three(2, 1) = 1;
  EXPECT_THAT(ConditionalInformation(three, 0),
              testing::ElementsAre(testing::DoubleNear(0.5 * std::log(1.5), 1e-6),
                                   testing::DoubleNear(0.5 * std::log(2.0), 1e-6),
                                   testing::DoubleNear(0.5 * std::log(1.5), 1e-6)));
  // Damping 0.5 adds 1 to the diagonal: 3 1 0 / 1 3 1 / 0 1 3, det 21, cofactors 8, 9, 8.
  EXPECT_THAT(ConditionalInformation(three, 0.5),
              testing::ElementsAre(testing::DoubleNear(0.5 * std::log(24.0 / 21), 1e-6),
                                   testing::DoubleNear(0.5 * std::log(27.0 / 21), 1e-6),
                                   testing::DoubleNear(0.5 * std::log(24.0 / 21), 1e-6)));
}

TEST(ConditionalInformation, IsZeroWithoutCorrelation) {
  Matrix<float> h(5, 5, 0.0f);
  for (size_t i = 0; i < 5; ++i) h(i, i) = std::pow(10.0f, static_cast<float>(i));
  EXPECT_THAT(ConditionalInformation(h, 0), testing::Each(testing::Le(1e-6)));
  h(3, 3) = 0;  // a dead channel is on its own too, damped or not
  EXPECT_THAT(ConditionalInformation(h, 0.01), testing::Each(testing::Le(1e-6)));
  EXPECT_THAT(ConditionalInformation(h, 0), testing::Each(testing::Le(1e-6)));
  h.Fill(0);  // a whole block of them
  EXPECT_THAT(ConditionalInformation(h, 0), testing::Each(testing::Le(1e-6)));
  EXPECT_THAT(ConditionalInformation(h, 0.01), testing::Each(testing::Le(1e-6)));
}

TEST(ConditionalInformation, TakesRankDeficientMomentsWithoutDamping) {
  Matrix<float> h(3, 3, 1.0f);  // three times the same channel
  for (const double information : ConditionalInformation(h, 0)) EXPECT_GT(information, 1);
  h(1, 1) = NAN;
  EXPECT_THAT(MessageOf([&] { ConditionalInformation(h, 0); }), testing::HasSubstr("row 1, column 1 is nan"));
}

double LogDeterminant(Matrix<double> h) {
  EXPECT_TRUE(CholeskyLowerFp64(h));
  double sum = 0;
  for (size_t i = 0; i < h.rows(); ++i) sum += 2 * std::log(h(i, i));
  return sum;
}

// I_j = 1/2 (ln H_jj + ln det H without row and column j - ln det H), in FP64, with one channel a hundred
// times the others.
TEST(ConditionalInformation, EqualsDifferencesOfLogDeterminants) {
  constexpr size_t n = 40;
  const double damping = 0.01;
  std::mt19937 random(15);
  std::normal_distribution<float> normal;
  Matrix<float> sample(300, n);
  for (size_t t = 0; t < sample.rows(); ++t) {
    const float common = normal(random);
    for (size_t c = 0; c < n; ++c)
      sample(t, c) =
          (normal(random) + 2 * common) * (c == 7 ? 100.0f : 1.0f + 0.1f * static_cast<float>(c % 5));
  }
  Moments moments(n);
  moments.Add(sample);
  const Matrix<float> h = moments.SecondMoment();
  const std::vector<double> information = ConditionalInformation(h, damping);
  const auto damped = [&](size_t i, size_t j) { return h(i, j) * (i == j ? 1 + damping : 1.0); };
  for (size_t j = 0; j < n; ++j) {
    Matrix<double> whole(n, n), rest(n - 1, n - 1);
    for (size_t a = 0; a < n; ++a) {
      for (size_t b = 0; b < n; ++b) {
        whole(a, b) = damped(a, b);
        if (a != j && b != j) rest(a - (a > j), b - (b > j)) = damped(a, b);
      }
    }
    const double expected =
        0.5 * (std::log(damped(j, j)) + LogDeterminant(std::move(rest)) - LogDeterminant(std::move(whole)));
    EXPECT_NEAR(information[j], expected, 1e-5);
  }
  EXPECT_GT(information[7], 0.5);
}

TEST(ConditionalInformation, RefusesIndefiniteMoments) {
  Matrix<float> h(2, 2);
  h(0, 0) = h(1, 1) = 1, h(0, 1) = h(1, 0) = 15;
  EXPECT_THAT(MessageOf([&] { ConditionalInformation(h, 0.01); }),
              testing::HasSubstr("not positive definite at any damping"));
}

}  // namespace
}  // namespace mica
