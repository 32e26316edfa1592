// DampedFactor against products in FP64: what is kept is the factor of H with the damping that it says.
#include "compress/curvature/damped_factor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/error.h"
#include "tests/error_message.h"

namespace mica {
namespace {

using Dense = std::vector<std::vector<double>>;  // [n][n]

constexpr size_t kChannels = 40;

// X X^T / tokens of correlated inputs; channel `dead` (if below kChannels) is always zero.
Matrix<float> Moments(size_t tokens, size_t dead = kChannels) {
  Matrix<float> x(tokens, kChannels);
  uint32_t state = 12345;
  for (size_t t = 0; t < tokens; ++t) {
    float last = 0;
    for (size_t c = 0; c < kChannels; ++c) {
      state = state * 1664525u + 1013904223u;
      last =
          0.6f * last + (static_cast<float>(state >> 8) * 0x1p-24f - 0.5f) * (1 + static_cast<float>(c % 5));
      x(t, c) = c == dead ? 0.0f : last;
    }
  }
  Matrix<float> h(kChannels, kChannels);
  for (size_t i = 0; i < kChannels; ++i) {
    for (size_t j = 0; j < kChannels; ++j) {
      double sum = 0;
      for (size_t t = 0; t < tokens; ++t) sum += double{x(t, i)} * x(t, j);
      h(i, j) = static_cast<float>(sum / static_cast<double>(tokens));
    }
  }
  return h;
}

std::vector<uint32_t> Reversed() {
  std::vector<uint32_t> order(kChannels);
  for (uint32_t p = 0; p < kChannels; ++p) order[p] = static_cast<uint32_t>(kChannels) - 1 - p;
  return order;
}

// a b, or a^T b.
Dense Product(MatrixView<const float> a, MatrixView<const float> b, bool transposed) {
  Dense product(a.rows, std::vector<double>(b.cols));
  for (size_t i = 0; i < a.rows; ++i) {
    for (size_t j = 0; j < b.cols; ++j) {
      for (size_t k = 0; k < a.rows; ++k) product[i][j] += double{transposed ? a(k, i) : a(i, k)} * b(k, j);
    }
  }
  return product;
}

void ExpectInverse(const Dense& inverse, MatrixView<const float> h, double tolerance) {
  for (size_t i = 0; i < h.rows; ++i) {
    for (size_t j = 0; j < h.cols; ++j) {
      double sum = 0;
      for (size_t k = 0; k < h.rows; ++k) sum += inverse[i][k] * h(k, j);
      EXPECT_NEAR(sum, i == j ? 1.0 : 0.0, tolerance) << i << ", " << j;
    }
  }
}

TEST(DampedFactor, UpperFactorIsThatOfTheInverseInTheOrderGiven) {
  const Matrix<float> h = Moments(400);
  const DampingPolicy policy{.share = 0.01, .mean = MeanEnergy(h), .failure = ""};
  const DampedFactor factor(h, Reversed(), FactorForm::kUpperOfInverse, policy);
  Matrix<float> damped(kChannels, kChannels);
  factor.DampedMoments(h, damped);
  for (size_t i = 0; i < kChannels; ++i) {
    EXPECT_EQ(damped(i, i), h(kChannels - 1 - i, kChannels - 1 - i) + static_cast<float>(0.01 * policy.mean));
    for (size_t j = 0; j < i; ++j) {
      EXPECT_EQ(damped(i, j), h(kChannels - 1 - i, kChannels - 1 - j));
      EXPECT_EQ(factor.matrix()(i, j), 0.0f);
    }
  }
  ExpectInverse(Product(factor.matrix(), factor.matrix(), true), damped, 1e-3);
  EXPECT_EQ(factor.raises(), 0);
  EXPECT_DOUBLE_EQ(factor.damping(), 0.01 * policy.mean);
}

TEST(DampedFactor, InverseIsThatOfTheDampedMoments) {
  const Matrix<float> h = Moments(400);
  const DampedFactor factor(h, {}, FactorForm::kInverse,
                            {.share = 0.03, .mean = MeanEnergy(h), .failure = ""});
  Matrix<float> damped(kChannels, kChannels), identity(kChannels, kChannels, 0.0f);
  factor.DampedMoments(h, damped);
  for (size_t i = 0; i < kChannels; ++i) identity(i, i) = 1;
  ExpectInverse(Product(factor.matrix(), identity, false), damped, 1e-3);
}

TEST(DampedFactor, ScaledFormIsTheInverseFactorOfAUnitDiagonal) {
  const Matrix<float> h = Moments(400);
  const double mean = MeanEnergy(h);
  const DampedFactor factor(h, {}, FactorForm::kScaledLowerInverse,
                            {.share = 0.01, .mean = mean, .failure = ""});
  Matrix<float> scaled(kChannels, kChannels);
  for (size_t i = 0; i < kChannels; ++i) {
    for (size_t j = 0; j < kChannels; ++j) {
      const double root = std::sqrt((h(i, i) + 0.01 * mean) * (h(j, j) + 0.01 * mean));
      scaled(i, j) = i == j ? 1.0f : static_cast<float>(h(i, j) / root);
    }
  }
  ExpectInverse(Product(factor.matrix(), factor.matrix(), true), scaled, 1e-3);
}

TEST(DampedFactor, DeadChannelsGetTheMeanEnergyAndAreNamedByPosition) {
  const Matrix<float> h = Moments(400, 7);
  const double mean = MeanEnergy(h);
  for (const DeadChannels dead : {DeadChannels::kMeanEnergy, DeadChannels::kApart}) {
    const DampedFactor factor(h, Reversed(), FactorForm::kUpperOfInverse,
                              {.share = 0.01, .mean = mean, .dead = dead, .failure = ""});
    const uint32_t position = kChannels - 1 - 7;
    EXPECT_EQ(factor.dead(), std::vector<uint32_t>{position});
    Matrix<float> damped(kChannels, kChannels), undamped(kChannels, kChannels);
    factor.DampedMoments(h, damped);
    factor.UndampedMoments(h, undamped);
    const double expected = dead == DeadChannels::kApart ? mean + 0.01 * mean : mean;
    EXPECT_FLOAT_EQ(damped(position, position), static_cast<float>(expected));
    EXPECT_EQ(undamped(position, position), 0.0f);
    EXPECT_EQ(undamped(0, 0), h(kChannels - 1, kChannels - 1));
  }
}

TEST(DampedFactor, DeadChannelsOfScaledMomentsGoWithNoOther) {
  Matrix<float> h = Moments(400, 7);
  for (const double share : {0.0, 0.01}) {
    const DampedFactor factor(h, {}, FactorForm::kScaledLowerInverse,
                              {.share = share, .mean = MeanEnergy(h), .failure = "never"});
    EXPECT_EQ(factor.raises(), 0);
    for (size_t j = 0; j < kChannels; ++j) EXPECT_EQ(factor.matrix()(7, j), j == 7 ? 1.0f : 0.0f);
  }
}

TEST(DampedFactor, NoMomentsAtAllCanBeFactored) {
  const Matrix<float> h(kChannels, kChannels, 0.0f);
  for (const FactorForm form :
       {FactorForm::kUpperOfInverse, FactorForm::kInverse, FactorForm::kScaledLowerInverse}) {
    for (const DeadChannels dead : {DeadChannels::kMeanEnergy, DeadChannels::kApart}) {
      const DampedFactor factor(h, {}, form,
                                {.share = 0, .mean = MeanEnergy(h), .dead = dead, .failure = "never"});
      EXPECT_EQ(factor.raises(), 0);
    }
  }
}

TEST(DampedFactor, MomentsThatAreNotFiniteAreNamed) {
  for (const float bad : {NAN, INFINITY}) {
    Matrix<float> h = Moments(400);
    h(3, 4) = bad;
    ExpectError([&] { DampedFactor(h, {}, FactorForm::kInverse, {.failure = "at any damping"}); },
                {"second moments", "row 3, column 4"});
  }
}

// Two equal channels whose moments are lifted off the cone: positive definite only with more than `lack`
// added.
Matrix<float> Indefinite(float lack) {
  Matrix<float> h(2, 2);
  h(0, 0) = h(1, 1) = 1;
  h(0, 1) = h(1, 0) = 1 + lack;
  return h;
}

TEST(DampedFactor, DampingIsDoubledUntilItIsEnough) {
  const Matrix<float> h = Indefinite(0.05f);
  const DampedFactor factor(h, {}, FactorForm::kUpperOfInverse, {.share = 0.01, .mean = 1, .failure = ""});
  EXPECT_EQ(factor.raises(), 3);  // .02, .04, .08
  EXPECT_DOUBLE_EQ(factor.share(), 0.08);
  const DampedFactor from_zero(h, {}, FactorForm::kUpperOfInverse,
                               {.share = 0, .mean = 1, .first_raise = 0.03, .failure = ""});
  EXPECT_DOUBLE_EQ(from_zero.share(), 0.06);
  const DampedFactor leap(h, {}, FactorForm::kUpperOfInverse,
                          {.share = 0.001, .mean = 1, .least_raise = 0.04, .failure = ""});
  EXPECT_DOUBLE_EQ(leap.share(), 0.08);
  EXPECT_EQ(leap.raises(), 2);
}

TEST(DampedFactor, GivesUpAsThePolicySaysWithItsMessage) {
  const Matrix<float> h = Indefinite(0.05f);
  const auto made = [&](const DampingPolicy& policy) {
    return MessageOf([&] { DampedFactor factor(h, {}, FactorForm::kInverse, policy); });
  };
  EXPECT_EQ(made({.share = 0.01, .mean = 1, .most_raises = 2, .failure = "too few"}), "too few");
  EXPECT_EQ(made({.share = 0.01, .mean = 1, .most_share = 0.05, .failure = "too little"}), "too little");
  EXPECT_NO_THROW(DampedFactor(h, {}, FactorForm::kInverse,
                               {.share = 0.01, .mean = 1, .most_raises = 3, .failure = "enough"}));
  Matrix<float> infinite = Indefinite(0);
  infinite(0, 0) = std::numeric_limits<float>::infinity();
  EXPECT_THROW(DampedFactor(infinite, {}, FactorForm::kInverse,
                            {.share = 0.01, .mean = 1, .most_raises = 3, .failure = "no"}),
               Error);
}

}  // namespace
}  // namespace mica
