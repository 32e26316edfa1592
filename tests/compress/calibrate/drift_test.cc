// The sums of a drift against FP64 sums from their definition.
#include "compress/calibrate/drift.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "device/precision.h"
#include "device/tensor.h"
#include "tests/error_message.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

// A value as the precision holds it.
float Held(float value, Precision precision) {
  return precision == Precision::kFp32 ? value : ToFloat(ToBF16(value));
}

// Array [tokens, cols] in rows that lie `gap` values apart; the gaps hold NaN.
class Source {
 public:
  Source(size_t tokens, size_t cols, size_t gap, Precision precision, uint32_t seed)
      : tokens_(tokens), cols_(cols), stride_(cols + gap), precision_(precision) {
    const std::vector<float> values = RandomValues(tokens * cols, seed);
    wide_ = NanFloats(tokens * stride_);
    for (size_t t = 0; t < tokens; ++t) {
      for (size_t c = 0; c < cols; ++c) wide_[t * stride_ + c] = Held(values[t * cols + c], precision);
    }
    halves_ = Rounded(wide_);
  }
  // Tokens [first, first + count).
  ConstTensor View(size_t first, size_t count) const {
    if (precision_ == Precision::kFp32)
      return MatrixView<const float>(wide_.data() + first * stride_, count, cols_, stride_);
    return MatrixView<const BF16>(halves_.data() + first * stride_, count, cols_, stride_);
  }
  ConstTensor View() const { return View(0, tokens_); }
  float operator()(size_t t, size_t c) const { return wide_[t * stride_ + c]; }

 private:
  size_t tokens_, cols_, stride_;
  Precision precision_;
  std::vector<float> wide_;
  std::vector<BF16> halves_;
};

struct Sizes {
  size_t rows, cols;
  std::vector<size_t> adds;  // tokens of each call
};
// Rows on either side of a tile of 128, tokens on either side of a block of 256.
const Sizes kSizes[] = {
    {1, 1, {1}}, {127, 33, {255}}, {128, 64, {256, 1}}, {129, 40, {257, 3, 300}}, {300, 17, {64, 513}}};

class DriftOf : public testing::TestWithParam<Precision> {};
INSTANTIATE_TEST_SUITE_P(Both, DriftOf, testing::Values(Precision::kFp32, Precision::kBf16),
                         [](const auto& info) { return PrecisionName(info.param); });

TEST_P(DriftOf, IsTheMeanOverAllCallsOfDifferenceTimesInput) {
  for (const Sizes& sizes : kSizes) {
    size_t tokens = 0;
    for (const size_t count : sizes.adds) tokens += count;
    const Source original(tokens, sizes.rows, 3, GetParam(), 1), moved(tokens, sizes.rows, 0, GetParam(), 2),
        x(tokens, sizes.cols, 5, GetParam(), 3);
    Drift drift(sizes.rows, sizes.cols);
    size_t first = 0;
    for (const size_t count : sizes.adds) {
      drift.Add(original.View(first, count), moved.View(first, count), x.View(first, count));
      first += count;
    }
    const Matrix<float> mean = drift.Mean();
    ASSERT_EQ(mean.rows(), sizes.rows);
    ASSERT_EQ(mean.cols(), sizes.cols);
    for (size_t r = 0; r < sizes.rows; ++r) {
      for (size_t c = 0; c < sizes.cols; ++c) {
        double exact = 0, rounded = 0, magnitude = 0;
        for (size_t t = 0; t < tokens; ++t) {
          const double difference = double{original(t, r)} - moved(t, r);
          exact += difference * x(t, c);
          rounded += double{Held(original(t, r) - moved(t, r), GetParam())} * x(t, c);
          magnitude += std::fabs(difference * x(t, c));
        }
        const auto n = static_cast<double>(tokens);
        // Differences are rounded as the precision says, sums are FP32.
        ASSERT_NEAR(mean(r, c), rounded / n, 2e-6 * magnitude / n) << tokens << " tokens, " << r << ", " << c;
        // Rounding to BF16 is at most 2^-8 of a difference.
        const double step = GetParam() == Precision::kFp32 ? 2e-6 : 1.0 / 256;
        ASSERT_NEAR(mean(r, c), exact / n, step * magnitude / n) << tokens << " tokens, " << r << ", " << c;
      }
    }
  }
}

TEST_P(DriftOf, NothingThatMovedIsExactlyZero) {
  const Source a(70, 130, 0, GetParam(), 4), x(70, 20, 0, GetParam(), 5);
  Drift drift(130, 20);
  drift.Add(a.View(), a.View(), x.View());
  const Matrix<float> mean = drift.Mean();
  for (size_t i = 0; i < mean.size(); ++i) ASSERT_EQ(mean.data()[i], 0.0f);
}

TEST_P(DriftOf, ACallWithoutTokensChangesNothing) {
  const Source a(70, 9, 0, GetParam(), 6), b(70, 9, 0, GetParam(), 7), x(70, 20, 0, GetParam(), 8);
  Drift plain(9, 20), drift(9, 20);
  plain.Add(a.View(), b.View(), x.View());
  drift.Add(a.View(0, 0), b.View(0, 0), x.View(0, 0));
  drift.Add(a.View(), b.View(), x.View());
  drift.Add(a.View(0, 0), b.View(0, 0), x.View(0, 0));
  const Matrix<float> expected = plain.Mean(), actual = drift.Mean();
  EXPECT_EQ(std::memcmp(actual.data(), expected.data(), actual.size() * sizeof(float)), 0);
  EXPECT_NE(expected(0, 0), 0.0f);
}

TEST_P(DriftOf, ThreadsDoNotChangeBits) {
  const Source a(400, 300, 0, GetParam(), 9), b(400, 300, 0, GetParam(), 10), x(400, 40, 0, GetParam(), 11);
  const auto run = [&](int threads) {
    SetThreads(threads);
    Drift drift(300, 40);
    drift.Add(a.View(), b.View(), x.View());
    SetThreads(0);
    return drift.Mean();
  };
  const Matrix<float> one = run(1), two = run(2), three = run(3);
  EXPECT_EQ(std::memcmp(one.data(), two.data(), one.size() * sizeof(float)), 0);
  EXPECT_EQ(std::memcmp(one.data(), three.data(), one.size() * sizeof(float)), 0);
  EXPECT_NE(one(299, 39), 0.0f);
}

}  // namespace
}  // namespace mica
