// What belongs to pairs of channels: worked by hand, against plain loops, on a device against the processor,
// and against itself.
#include "ops/census/pairs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "tests/ops/devices.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;

class PairsOn : public OnDevices {
 protected:
  // GaussianInformation, of a matrix within a larger one, into another one or itself.
  Matrix<float> Inform(const Matrix<float>& h, const std::vector<double>& mean, bool in_place) const {
    Framed from(device(), h, 3, 2), out(device(), h.rows(), h.rows(), DType::kF32, 1, 6);
    GaussianInformation(from.view(), mean, in_place ? from.view() : out.view());
    EXPECT_TRUE(from.FrameIsWhole());
    EXPECT_TRUE(out.FrameIsWhole());
    return OnHost(in_place ? from.view() : out.view());
  }
  Matrix<float> Normalise(const Matrix<float>& information) const {
    Framed values(device(), information, 1, 2);
    NormaliseInformation(values.view());
    EXPECT_TRUE(values.FrameIsWhole());
    return OnHost(values.view());
  }
};
MICA_OVER_DEVICES(PairsOn);

double ClosedForm(double rho) { return -0.5 * std::log(1 - rho * rho); }

// Second moments of channels of unequal scale and mean, some dead, some copies of others.
struct Moments {
  Matrix<float> h;
  std::vector<double> mean;
};
Moments SomeMoments(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  Moments moments{Matrix<float>(n, n), std::vector<double>(n)};
  std::vector<double> deviation(n);
  for (size_t i = 0; i < n; ++i) {
    deviation[i] = i % 29 == 17 ? 0 : std::exp2(3 * uniform(random));
    moments.mean[i] = 2 * deviation[i] * uniform(random);
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      const double rho = i == j ? 1 : (i % 13 == 12 && j + 1 == i ? -1 : 0.7 * uniform(random));
      moments.h(i, j) = moments.h(j, i) =
          static_cast<float>(rho * deviation[i] * deviation[j] + moments.mean[i] * moments.mean[j]);
    }
  }
  return moments;
}

Matrix<float> SomeAffinity(size_t n, uint32_t seed) {
  const std::vector<float> values = RandomValues(n * n, seed);
  Matrix<float> affinity(n, n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j)
      affinity(i, j) = affinity(j, i) = std::min(1.0f, std::abs(values[i * n + j]) / 3);
  }
  return affinity;
}

// One rounding to FP32 apart, and of values below 1e-7 what FP64 leaves of 1 - rho.
void ExpectAlike(const Matrix<float>& found, const Matrix<float>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i)
    ASSERT_NEAR(found.data()[i], expected.data()[i], 2e-7 * std::abs(expected.data()[i]) + 1e-15) << i;
}

// ---- worked by hand ----

// Covariances 4, 9 and 3 give rho 1/2 and I = -1/2 ln(3/4); the means must be taken out of the second
// moments.
TEST_P(PairsOn, InformationIsWhatOneWorksOutByHand) {
  Matrix<float> h(3, 3);
  const std::vector<double> mean = {1, -2, 10};
  const double covariance[3][3] = {{4, 3, 0}, {3, 9, 6}, {0, 6, 16}};
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) h(i, j) = static_cast<float>(covariance[i][j] + mean[i] * mean[j]);
  }
  const Matrix<float> information = Inform(h, mean, false);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(information(i, i), 0);
  EXPECT_NEAR(information(0, 1), -0.5 * std::log(0.75), 1e-6);
  EXPECT_NEAR(information(1, 2), -0.5 * std::log(0.75), 1e-6);
  EXPECT_NEAR(information(0, 2), 0, 1e-12);
  EXPECT_EQ(information(1, 0), information(0, 1));
}

TEST_P(PairsOn, InformationIsLimitedForCopiesAndZeroForDeadAndConstantChannels) {
  // Channels: x, -2 x, always 0, always 5.
  Matrix<float> h(4, 4, 0.0f);
  h(0, 0) = 1, h(0, 1) = h(1, 0) = -2, h(1, 1) = 4, h(3, 3) = 25;
  const Matrix<float> information = Inform(h, {0, 0, 0, 5}, true);
  const double limit = ClosedForm(1 - kCorrelationMargin);
  EXPECT_NEAR(limit, 7.71, 0.01);
  EXPECT_NEAR(information(0, 1), limit, 1e-5);
  for (const size_t dead : {2, 3}) {
    for (size_t j = 0; j < 4; ++j) EXPECT_EQ(information(dead, j), 0);
  }
}

TEST_P(PairsOn, NormalisedInformationIsTheCorrelationOfAGaussianPair) {
  Matrix<float> information(2, 3);
  const double rhos[] = {0.0, 0.1, 0.3, 0.6, 0.9, 0.999};
  for (size_t i = 0; i < 6; ++i) information.data()[i] = static_cast<float>(ClosedForm(rhos[i]));
  const Matrix<float> normalised = Normalise(information);
  for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(normalised.data()[i], rhos[i], 1e-6);
  Matrix<float> odd(1, 2);
  odd(0, 0) = -0.1f, odd(0, 1) = 40.0f;  // below zero cannot come; large saturates
  const Matrix<float> limits = Normalise(odd);
  EXPECT_EQ(limits(0, 0), 0.0f);
  EXPECT_EQ(limits(0, 1), 1.0f);
}

TEST_P(PairsOn, SumsOfASmallMatrix) {
  Matrix<float> small(3, 3);
  const float values[] = {8,    0.5,  0.25,  //
                          0.5,  7,    0.75,  //
                          0.25, 0.75, 1};
  std::copy_n(values, 9, small.data());
  const Array x = CopyTo(device(), small);
  EXPECT_DOUBLE_EQ(MeanOverPairs(x.view()), 0.5);
  EXPECT_EQ(MeanOverPairs(x.view().Rows(0, 1).Cols(0, 1)), 0);
  std::vector<double> y(3);
  MultiplyOffDiagonal(x.view(), std::vector<double>{2, -4, 8}, y);
  EXPECT_THAT(y, ElementsAre(0, 7, -2.5));
  // Channels 0 and 2 against channel 1; nobody is in group 2.
  const Matrix<double> distances = GroupDistances(x.view(), {2, 0}, {0, 1, 0}, 3);
  EXPECT_THAT(std::vector<double>(distances.data(), distances.data() + 6),
              ElementsAre(DoubleEq(0.75), DoubleEq(0.25), 0, DoubleEq(-6.25), DoubleEq(0.5), 0));
}

// ---- against plain loops ----

// Sizes around the edges of tiles and blocks.
TEST_P(PairsOn, InformationOfAnyNumberOfChannels) {
  for (const size_t n : {1, 2, 31, 32, 33, 65, 300}) {
    const Moments moments = SomeMoments(n, static_cast<uint32_t>(n));
    const std::vector<double> inverse = InverseDeviations(moments.h, moments.mean);
    Matrix<float> expected(n, n, 0.0f);
    for (size_t i = 0; i < n; ++i) {
      EXPECT_EQ(inverse[i] == 0, i % 29 == 17) << i;
      for (size_t j = 0; j < i; ++j) {
        const double rho = std::min(
            std::abs((moments.h(i, j) - moments.mean[i] * moments.mean[j]) * inverse[i] * inverse[j]),
            1 - kCorrelationMargin);
        expected(i, j) = expected(j, i) = static_cast<float>(-0.5 * std::log((1 - rho) * (1 + rho)));
      }
    }
    SCOPED_TRACE(n);
    const Matrix<float> found = Inform(moments.h, moments.mean, false);
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        // What a rounding of the covariance in FP64 can do: a copy's rho lies next to 1.
        ASSERT_NEAR(found(i, j), expected(i, j), 3e-7 * std::abs(expected(i, j)) + 1e-15) << i << ", " << j;
        ASSERT_EQ(found(i, j), found(j, i));
      }
    }
    EXPECT_TRUE(SameBytes(found, Inform(moments.h, moments.mean, true)));
    Matrix<float> normalised(n, n);
    for (size_t i = 0; i < found.size(); ++i)
      normalised.data()[i] = static_cast<float>(std::sqrt(-std::expm1(-2.0 * found.data()[i])));
    ExpectAlike(Normalise(found), normalised);
  }
}

TEST_P(PairsOn, SumsOfAnyNumberOfChannels) {
  for (const size_t n : {1, 2, 3, 4, 5, 255, 258, 1100}) {
    const Matrix<float> affinity = SomeAffinity(n, static_cast<uint32_t>(n));
    Framed there(device(), affinity, 5, 4);
    const std::vector<float> values = RandomValues(n, 3);
    const std::vector<double> x(values.begin(), values.end());
    std::vector<double> y(n), again(n);
    MultiplyOffDiagonal(there.view(), x, y);
    MultiplyOffDiagonal(there.view(), x, again);
    EXPECT_EQ(y, again);
    double all = 0;
    for (size_t i = 0; i < n; ++i) {
      double expected = 0, size = 0;
      for (size_t j = 0; j < n; ++j) {
        if (j == i) continue;
        expected += affinity(i, j) * x[j];
        size += affinity(i, j) * std::abs(x[j]);
        all += affinity(i, j);
      }
      ASSERT_NEAR(y[i], expected, 1e-14 * (size + 3)) << n << ", " << i;
    }
    const double pairs = std::max(1.0, static_cast<double>(n * (n - 1)));
    EXPECT_NEAR(MeanOverPairs(there.view()), all / pairs, 1e-13);
  }
}

TEST_P(PairsOn, DistancesOfGroupsOfAnySize) {
  for (const size_t groups : {1, 2, 7, 9, 40}) {
    constexpr size_t kChannels = 333;
    const Matrix<float> affinity = SomeAffinity(kChannels, 4);
    Framed there(device(), affinity, 2, 3);
    std::vector<uint32_t> rows, group(kChannels);
    for (size_t j = 0; j < kChannels; ++j) {
      // The first group is large, the last one empty but for few.
      group[j] = j % 3 == 0 ? 0 : static_cast<uint32_t>(j * j % groups);
      if (j % 5 != 2) rows.push_back(static_cast<uint32_t>(kChannels - 1 - j));
    }
    const Matrix<double> found = GroupDistances(there.view(), rows, group, groups);
    ASSERT_EQ(found.rows(), rows.size());
    ASSERT_EQ(found.cols(), groups);
    std::vector<double> sum(groups);
    for (size_t s = 0; s < rows.size(); ++s) {
      std::fill(sum.begin(), sum.end(), 0.0);
      for (size_t j = 0; j < kChannels; ++j) sum[group[j]] += 1.0 - affinity(rows[s], j);
      for (size_t g = 0; g < groups; ++g) ASSERT_NEAR(found(s, g), sum[g], 1e-11) << s << ", " << g;
    }
    const Matrix<double> again = GroupDistances(there.view(), rows, group, groups);
    EXPECT_TRUE(std::equal(found.data(), found.data() + found.size(), again.data()));
  }
}

}  // namespace
}  // namespace mica
