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

TEST(DampedFactor, IsTheFactorOfTheInverseInTheOrderGiven) {
  const Matrix<float> h = Moments(400);
  const DampedFactor factor(h, Reversed(), 0.01);
  Matrix<float> damped(kChannels, kChannels);
  factor.DampedMoments(h, damped);
  for (size_t i = 0; i < kChannels; ++i) {
    const float energy = h(kChannels - 1 - i, kChannels - 1 - i);
    EXPECT_FLOAT_EQ(damped(i, i), energy * 1.01f);
    for (size_t j = 0; j < i; ++j) {
      EXPECT_EQ(damped(i, j), h(kChannels - 1 - i, kChannels - 1 - j));
      EXPECT_EQ(factor.u()(i, j), 0.0f);
    }
  }
  ExpectInverse(Product(factor.u(), factor.u(), true), damped, 1e-3);
  EXPECT_EQ(factor.raises(), 0);
  EXPECT_EQ(factor.share(), 0.01);
}

TEST(DampedFactor, AChannelTimesAPowerOfTwoIsTheSameProblemBitByBit) {
  const Matrix<float> h = Moments(400);
  for (const int octaves : {-20, 1, 20}) {
    Matrix<float> scaled = h.Clone();
    for (size_t j = 0; j < kChannels; ++j) {
      scaled(7, j) = std::ldexp(scaled(7, j), octaves);
      scaled(j, 7) = std::ldexp(scaled(j, 7), octaves);
    }
    const DampedFactor factor(h, {}, 0.01), other(scaled, {}, 0.01);
    for (size_t i = 0; i < kChannels; ++i) {
      for (size_t j = 0; j < kChannels; ++j)
        EXPECT_EQ(other.u()(i, j), j == 7 ? std::ldexp(factor.u()(i, j), -octaves) : factor.u()(i, j));
    }
    EXPECT_EQ(factor.Information(h), other.Information(scaled));
  }
}

TEST(DampedFactor, ChannelsWithoutEnergyGoWithNoOtherAndAreNamedByPosition) {
  const Matrix<float> h = Moments(400, 7);
  for (const double share : {0.0, 0.01}) {
    const DampedFactor factor(h, Reversed(), share);
    const uint32_t position = kChannels - 1 - 7;
    EXPECT_EQ(factor.raises(), 0);
    EXPECT_EQ(factor.dead(), std::vector<uint32_t>{position});
    Matrix<float> damped(kChannels, kChannels), undamped(kChannels, kChannels);
    factor.DampedMoments(h, damped);
    factor.UndampedMoments(h, undamped);
    EXPECT_EQ(damped(position, position), 1.0f);
    EXPECT_EQ(undamped(position, position), 0.0f);
    EXPECT_EQ(undamped(0, 0), h(kChannels - 1, kChannels - 1));
    for (size_t j = 0; j < kChannels; ++j) EXPECT_EQ(factor.u()(position, j), j == position ? 1.0f : 0.0f);
    EXPECT_EQ(factor.InverseDiagonal()[7], 0);
    EXPECT_EQ(factor.Information(h)[7], 0);
  }
}

TEST(DampedFactor, DiagonalAndProductAreThoseOfTheInverse) {
  const Matrix<float> h = Moments(400);
  const DampedFactor factor(h, Reversed(), 0.03);
  Matrix<float> identity(kChannels, kChannels, 0.0f), damped = h.Clone();
  for (size_t i = 0; i < kChannels; ++i) {
    identity(i, i) = 1;
    damped(i, i) = static_cast<float>(h(i, i) * 1.03);
  }
  Matrix<float> inverse = identity.Clone();
  factor.MultiplyByInverse(inverse, 100);
  ExpectInverse(Product(inverse, identity, false), damped, 1e-3);
  const std::vector<double> diagonal = factor.InverseDiagonal();
  for (size_t i = 0; i < kChannels; ++i) EXPECT_NEAR(diagonal[i], inverse(i, i), 1e-4 * diagonal[i]);
}

TEST(DampedFactor, NoMomentsAtAllCanBeFactored) {
  const Matrix<float> h(kChannels, kChannels, 0.0f);
  EXPECT_EQ(DampedFactor(h, {}, 0).raises(), 0);
}

TEST(DampedFactor, MomentsThatAreNotFiniteAreNamed) {
  for (const float bad : {NAN, INFINITY}) {
    Matrix<float> h = Moments(400);
    h(3, 4) = bad;
    ExpectError([&] { DampedFactor(h, {}, 0.01); }, {"second moments", "row 3, column 4"});
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

TEST(DampedFactor, DampingIsDoubledUntilItIsEnoughOrNoneIs) {
  const DampedFactor factor(Indefinite(0.05f), {}, 0.01);
  EXPECT_EQ(factor.raises(), 3);  // .02, .04, .08
  EXPECT_DOUBLE_EQ(factor.share(), 0.08);
  EXPECT_GT(DampedFactor(Indefinite(0.05f), {}, 0).share(), 0.05);
  ExpectError([&] { DampedFactor(Indefinite(20), {}, 0.01); }, {"not positive definite at any damping"});
}

}  // namespace
}  // namespace mica
