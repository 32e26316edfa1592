#include "compress/calibrate/moments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/half.h"
#include "base/matrix.h"
#include "base/threads.h"
#include "tests/error_message.h"

namespace mica {
namespace {

// Correlated channels of very different size, the second one with a large mean, as inputs of linear layers
// are.
Matrix<float> SomeTokens(size_t tokens, size_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix<float> x(tokens, cols);
  for (size_t t = 0; t < tokens; ++t) {
    const float common = normal(random);
    for (size_t c = 0; c < cols; ++c) {
      const float scale = c % 37 == 5 ? 20.0f : 1.0f / static_cast<float>(1 + c % 7);
      x(t, c) = scale * (0.5f * common + normal(random)) + (c == 1 ? 10.0f : 0.0f);
    }
  }
  return x;
}

Matrix<BF16> Rounded(const Matrix<float>& x) {
  Matrix<BF16> out(x.rows(), x.cols());
  for (size_t i = 0; i < x.size(); ++i) out.data()[i] = ToBF16(x.data()[i]);
  return out;
}

Matrix<float> Widened(const Matrix<BF16>& x) {
  Matrix<float> out(x.rows(), x.cols());
  for (size_t i = 0; i < x.size(); ++i) out.data()[i] = ToFloat(x.data()[i]);
  return out;
}

// The oracle: every product and sum in FP64.
Matrix<double> ExactSecondMoment(const Matrix<float>& x, const std::vector<float>& weights) {
  Matrix<double> h(x.cols(), x.cols(), 0.0);
  double total = 0;
  for (size_t t = 0; t < x.rows(); ++t) {
    const double weight = weights.empty() ? 1.0 : weights[t];
    total += weight;
    for (size_t i = 0; i < x.cols(); ++i) {
      for (size_t j = 0; j < x.cols(); ++j) h(i, j) += weight * x(t, i) * x(t, j);
    }
  }
  for (size_t i = 0; i < h.size(); ++i) h.data()[i] /= total;
  return h;
}

template <typename T>
double LargestDifference(const Matrix<float>& a, const Matrix<T>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::abs(double{a.data()[i]} - double{b.data()[i]}));
  return largest;
}

template <typename T>
double LargestDiagonal(const Matrix<T>& h) {
  double largest = 0;
  for (size_t i = 0; i < h.rows(); ++i) largest = std::max(largest, double{h(i, i)});
  return largest;
}

TEST(Moments, AreWhatOneWorksOutByHand) {
  Matrix<float> x(2, 3);
  const float values[] = {1, 2, -3, 4, 0, 5};
  std::copy_n(values, 6, x.data());
  Moments moments(3);
  moments.Add(x);
  const Matrix<float> h = moments.SecondMoment();
  const float expected[] = {8.5f, 1.0f, 8.5f, 1.0f, 2.0f, -3.0f, 8.5f, -3.0f, 17.0f};
  for (size_t i = 0; i < 9; ++i) EXPECT_EQ(h.data()[i], expected[i]) << i;
  EXPECT_THAT(moments.Mean(), testing::ElementsAre(2.5, 1.0, 1.0));
  EXPECT_EQ(moments.tokens(), 2u);
  EXPECT_EQ(moments.weight(), 2.0);
}

TEST(Moments, WeightsCountATokenSeveralTimes) {
  Matrix<float> x(3, 2);
  const float values[] = {1, 2, 3, -1, 5, 7};
  std::copy_n(values, 6, x.data());
  Moments moments(2);
  const std::vector<float> weights = {4, 1, 0};
  moments.Add(x, weights);
  const Matrix<float> h = moments.SecondMoment();
  EXPECT_FLOAT_EQ(h(0, 0), (4 * 1 + 9) / 5.0f);
  EXPECT_FLOAT_EQ(h(1, 0), (4 * 2 - 3) / 5.0f);
  EXPECT_FLOAT_EQ(h(0, 1), h(1, 0));
  EXPECT_FLOAT_EQ(h(1, 1), (4 * 4 + 1) / 5.0f);
  EXPECT_THAT(moments.Mean(), testing::ElementsAre(testing::DoubleEq(1.4), testing::DoubleEq(1.4)));
  EXPECT_EQ(moments.tokens(), 3u);
  EXPECT_EQ(moments.weight(), 5.0);
}

struct Case {
  size_t tokens, cols;
};
class MomentsShapes : public testing::TestWithParam<Case> {};

// Sizes on either side of a vector, a tile of 128 columns, a block of 256 tokens and a chunk of 2048.
INSTANTIATE_TEST_SUITE_P(Sizes, MomentsShapes,
                         testing::Values(Case{1, 1}, Case{5, 7}, Case{8, 8}, Case{255, 127}, Case{256, 128},
                                         Case{257, 129}, Case{513, 300}, Case{2049, 16}, Case{4500, 33}),
                         [](const auto& info) {
                           return std::to_string(info.param.tokens) + "x" + std::to_string(info.param.cols);
                         });

TEST_P(MomentsShapes, Bf16AgreesWithTheOracle) {
  const Matrix<BF16> x = Rounded(SomeTokens(GetParam().tokens, GetParam().cols, 1));
  Moments moments(x.cols());
  moments.Add(x);
  const Matrix<double> expected = ExactSecondMoment(Widened(x), {});
  EXPECT_LT(LargestDifference(moments.SecondMoment(), expected), 1e-6 * LargestDiagonal(expected));
  for (size_t c = 0; c < x.cols(); ++c) {
    double sum = 0;
    for (size_t t = 0; t < x.rows(); ++t) sum += ToFloat(x(t, c));
    const double mean = sum / static_cast<double>(x.rows());
    EXPECT_NEAR(moments.Mean()[c], mean, 1e-6 * std::sqrt(expected(c, c)));
  }
}

TEST_P(MomentsShapes, Fp32AgreesWithTheOracle) {
  const Matrix<float> x = SomeTokens(GetParam().tokens, GetParam().cols, 2);
  Moments moments(x.cols());
  moments.Add(x);
  const Matrix<double> expected = ExactSecondMoment(x, {});
  EXPECT_LT(LargestDifference(moments.SecondMoment(), expected), 1e-6 * LargestDiagonal(expected));
}

TEST_P(MomentsShapes, WeightsAgreeWithTheOracleInBothTypes) {
  const Matrix<BF16> x = Rounded(SomeTokens(GetParam().tokens, GetParam().cols, 3));
  const Matrix<float> wide = Widened(x);
  std::mt19937 random(4);
  std::vector<float> weights(x.rows());
  for (float& weight : weights) weight = std::uniform_real_distribution<float>(0.01f, 3.0f)(random);
  Moments from_bf16(x.cols()), from_fp32(x.cols());
  from_bf16.Add(x, weights);
  from_fp32.Add(wide, weights);
  const Matrix<double> expected = ExactSecondMoment(wide, weights);
  EXPECT_LT(LargestDifference(from_bf16.SecondMoment(), expected), 1e-6 * LargestDiagonal(expected));
  EXPECT_EQ(LargestDifference(from_bf16.SecondMoment(), from_fp32.SecondMoment()), 0);
  EXPECT_EQ(from_bf16.Mean(), from_fp32.Mean());
}

TEST(Moments, ReadRowsAtAnyStride) {
  const Matrix<BF16> x = Rounded(SomeTokens(300, 150, 5));
  Matrix<BF16> part(300, 140);
  for (size_t t = 0; t < 300; ++t) std::copy_n(x.row(t) + 3, 140, part.row(t));
  Moments strided(140), dense(140);
  strided.Add(x.view().Cols(3, 140));
  dense.Add(part);
  EXPECT_EQ(LargestDifference(strided.SecondMoment(), dense.SecondMoment()), 0);
}

TEST(Moments, DoNotDependOnTheOrderOrThePortionsOfTokens) {
  constexpr size_t kTokens = 3000, kCols = 140;
  const Matrix<BF16> x = Rounded(SomeTokens(kTokens, kCols, 6));
  std::vector<size_t> order(kTokens);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937(7));
  Matrix<BF16> shuffled(kTokens, kCols);
  for (size_t t = 0; t < kTokens; ++t) std::copy_n(x.row(order[t]), kCols, shuffled.row(t));
  Moments whole(kCols), other(kCols);
  whole.Add(x);
  for (size_t first = 0, portion = 1; first < kTokens; first += portion, portion = portion * 3 + 1) {
    portion = std::min(portion, kTokens - first);
    other.Add(shuffled.view().Rows(first, portion));
  }
  EXPECT_EQ(other.tokens(), kTokens);
  const Matrix<float> h = whole.SecondMoment();
  EXPECT_LT(LargestDifference(h, other.SecondMoment()), 1e-6 * LargestDiagonal(h));
}

// Equal addends round the same way again and again: the worst case of an FP32 sum.
TEST(Moments, ConstantChannelsKeepTheirPrecision) {
  Matrix<float> x(2560, 3);
  for (size_t t = 0; t < x.rows(); ++t) {
    x(t, 0) = 0.3f, x(t, 1) = -17.1f, x(t, 2) = 1e-3f;
  }
  Moments moments(3);
  moments.Add(x);
  const Matrix<float> h = moments.SecondMoment();
  for (size_t i = 0; i < 3; ++i)
    EXPECT_NEAR(h(i, i), double{x(0, i)} * x(0, i), 3e-6 * double{x(0, i)} * x(0, i));
}

TEST(Moments, DoNotDependOnTheNumberOfThreads) {
  const Matrix<float> fp32 = SomeTokens(2500, 260, 8);
  const Matrix<BF16> bf16 = Rounded(fp32);
  const int before = Threads();
  std::vector<Matrix<float>> results;
  std::vector<std::vector<double>> means;
  for (const int threads : {1, 2, 5}) {
    SetThreads(threads);
    Moments a(260), b(260);
    a.Add(fp32);
    b.Add(bf16);
    results.push_back(a.SecondMoment());
    results.push_back(b.SecondMoment());
    means.push_back(b.Mean());
  }
  SetThreads(before);
  for (size_t i = 2; i < results.size(); ++i)
    EXPECT_EQ(LargestDifference(results[i], results[i - 2]), 0) << i;
  EXPECT_EQ(means[0], means[1]);
  EXPECT_EQ(means[0], means[2]);
}

TEST(Moments, AreSymmetric) {
  const Matrix<BF16> x = Rounded(SomeTokens(300, 200, 9));
  Moments moments(200);
  moments.Add(x);
  const Matrix<float> h = moments.SecondMoment();
  for (size_t i = 0; i < 200; ++i) {
    for (size_t j = 0; j < i; ++j) ASSERT_EQ(h(i, j), h(j, i));
  }
}

TEST(Moments, NameTheChannelThatIsNotFinite) {
  const float kNan = std::numeric_limits<float>::quiet_NaN(),
              kInfinity = std::numeric_limits<float>::infinity();
  Matrix<float> x = SomeTokens(600, 200, 10);
  x(400, 150) = kNan, x(20, 150) = -kInfinity, x(599, 199) = kInfinity;
  const Matrix<BF16> rounded = Rounded(x);
  const auto expected =
      testing::AllOf(testing::HasSubstr("channel 150 holds 2 NaN or infinite values among 600 tokens"),
                     testing::HasSubstr("2 of 200 channels"));
  EXPECT_THAT(MessageOf([&] { Moments(200).Add(x); }), expected);
  EXPECT_THAT(MessageOf([&] { Moments(200).Add(rounded); }), expected);
  const std::vector<float> weights(600, 0.5f);
  EXPECT_THAT(MessageOf([&] { Moments(200).Add(rounded, weights); }), expected);
}

TEST(Moments, RefuseMagnitudesWhoseProductsOverflow) {
  Matrix<float> x(2, 2, 1.0f);
  x(1, 1) = -1e18f;
  EXPECT_THAT(MessageOf([&] { Moments(2).Add(x); }), testing::HasSubstr("channel 1 reaches 1e+18"));
  x(1, 1) = -5e17f;
  Moments moments(2);
  moments.Add(x);
  EXPECT_FLOAT_EQ(moments.SecondMoment()(1, 1), (1.0f + 25e34f) / 2);
}

TEST(Moments, RefuseBadWeightsAndEmptySums) {
  const Matrix<float> x(2, 2, 1.0f);
  const std::vector<float> negative = {1.0f, -0.5f}, nan = {std::nanf(""), 1.0f}, zero = {0.0f, 0.0f};
  EXPECT_THAT(MessageOf([&] { Moments(2).Add(x, negative); }), testing::HasSubstr("token 1 weighs -0.5"));
  EXPECT_THAT(MessageOf([&] { Moments(2).Add(x, nan); }), testing::HasSubstr("token 0"));
  EXPECT_THAT(MessageOf([] { Moments(2).SecondMoment(); }), testing::HasSubstr("0 tokens"));
  Moments weightless(2);
  weightless.Add(x, zero);
  EXPECT_THAT(MessageOf([&] { weightless.Mean(); }), testing::HasSubstr("2 tokens of total weight 0"));
}

}  // namespace
}  // namespace mica
