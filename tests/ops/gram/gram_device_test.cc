// Gram, BlockGram and AddDriftSum on every device against FP64 sums from their definition.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/gram/block_gram.h"
#include "ops/gram/drift_sum.h"
#include "ops/gram/gram.h"
#include "tests/error_message.h"
#include "tests/ops/devices.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

class GramOn : public OnDevices {};
MICA_OVER_DEVICES(GramOn);

// Channels of different size with something in common, the second one with a large mean.
Array Tokens(size_t tokens, size_t cols, DType dtype, uint32_t seed) {
  std::vector<float> values = RandomValues(tokens * cols, seed);
  const std::vector<float> common = RandomValues(tokens, seed + 1000);
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t c = 0; c < cols; ++c) {
      float& value = values[t * cols + c];
      value = (c % 37 == 5 ? 20.0f : 1.0f / static_cast<float>(1 + c % 7)) * (0.5f * common[t] + value) +
              (c == 1 ? 10.0f : 0.0f);
    }
  }
  return FromFloats(values, tokens, cols, dtype);
}

// Sum of w x_i x_j where i and j are in one block, else 0: [cols, cols].
Matrix<double> Exact(const Array& x, const std::vector<float>& weights, size_t block) {
  const size_t cols = x.cols();
  const std::vector<float> values = Floats(x.view());
  Matrix<double> sums(cols, cols, 0.0);
  for (size_t t = 0; t < x.rows(); ++t) {
    const float* row = values.data() + t * cols;
    for (size_t i = 0; i < cols; ++i) {
      const double factor = (weights.empty() ? 1.0 : double{weights[t]}) * row[i];
      for (size_t j = i / block * block; j <= i; ++j) sums(i, j) += factor * row[j];
    }
  }
  for (size_t i = 0; i < cols; ++i) {
    for (size_t j = 0; j < i; ++j) sums(j, i) = sums(i, j);
  }
  return sums;
}

double LargestDiagonal(const Matrix<double>& a) {
  double largest = 0;
  for (size_t i = 0; i < a.rows(); ++i) largest = std::max(largest, a(i, i));
  return largest;
}

struct Case {
  size_t tokens, cols, left, right;  // left, right: of the frame in which x lies
};
// Around a chain of 64 tokens, a portion of 2048, a tile of 128; rows that are aligned and rows that are not.
const Case kCases[] = {{1, 1, 0, 0},      {5, 7, 0, 0},      {63, 130, 3, 2},   {64, 128, 8, 8},
                       {65, 136, 0, 0},   {130, 300, 4, 0},  {2048, 130, 0, 0}, {2049, 264, 16, 8},
                       {4500, 130, 1, 1}, {2500, 256, 0, 0}, {0, 9, 0, 0}};

TEST_P(GramOn, IsTheSumOfProducts) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool weighted : {false, true}) {
      for (const Case& c : kCases) {
        SCOPED_TRACE(testing::Message()
                     << DTypeName(dtype) << ' ' << weighted << ' ' << c.tokens << 'x' << c.cols);
        const Array x = Tokens(c.tokens, c.cols, dtype, 1);
        std::vector<float> weights;
        if (weighted) {
          for (const float value : RandomValues(c.tokens, 2)) weights.push_back(std::fabs(value));
        }
        Framed there(device(), x.view(), c.left, c.right);
        Gram gram(c.cols, device());
        gram.Add(there.view(), weights);
        const Matrix<double> expected = Exact(x, weights, c.cols);
        const double tolerance = 1e-6 * LargestDiagonal(expected) + 1e-30;
        Framed out(device(), c.cols, c.cols, DType::kF32, 1, 2);
        gram.CopyScaled(0.5, out.view());
        EXPECT_TRUE(out.FrameIsWhole());
        const Matrix<float> h = OnHost(out.view());
        Matrix<float> here(c.cols, c.cols);
        gram.CopyScaled(0.5, here);
        EXPECT_TRUE(SameBytes(h, here));
        for (size_t i = 0; i < c.cols; ++i) {
          for (size_t j = 0; j < c.cols; ++j) {
            ASSERT_NEAR(h(i, j), 0.5 * expected(i, j), tolerance) << i << ", " << j;
            ASSERT_EQ(h(i, j), h(j, i));
          }
        }
        EXPECT_NEAR(gram.Sum(c.cols - 1, c.cols / 2), expected(c.cols - 1, c.cols / 2), tolerance);
        EXPECT_EQ(gram.Sum(c.cols / 2, c.cols - 1), gram.Sum(c.cols - 1, c.cols / 2));
        const std::vector<float> values = Floats(x.view());
        const std::vector<double> sums = gram.ColumnSums();
        for (size_t i = 0; i < c.cols; ++i) {
          double sum = 0, size = 0;
          for (size_t t = 0; t < c.tokens; ++t) {
            const double term = (weighted ? double{weights[t]} : 1.0) * values[t * c.cols + i];
            sum += term;
            size += std::fabs(term);
          }
          ASSERT_NEAR(sums[i], sum, 1e-6 * size) << i;
        }
      }
    }
  }
}

// Of many columns a device takes other products, several of them for the rows of the sums.
TEST_P(GramOn, ManyColumnsAreSummedInPanels) {
  constexpr size_t kTokens = 2048 + 300, kCols = 2690;
  const Array x = Tokens(kTokens, kCols, DType::kBF16, 6);
  const std::vector<float> values = Floats(x.view());
  Gram once(kCols, device()), often(kCols, device());
  const Array there = CopyTo(device(), x.view());
  once.Add(there.view());
  constexpr size_t kTimes = 18;  // more than are added in FP32
  for (size_t i = 0; i < kTimes; ++i) often.Add(there.view());
  Matrix<float> h(kCols, kCols), of_often(kCols, kCols);
  once.CopyScaled(1, h);
  often.CopyScaled(1.0 / kTimes, of_often);
  std::vector<double> size(kCols, 0.0);
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t i = 0; i < kCols; ++i) size[i] += double{values[t * kCols + i]} * values[t * kCols + i];
  }
  for (size_t i = 0; i < kCols; i += i < 20 ? 1 : 67) {
    for (size_t j = 0; j < kCols; ++j) {
      ASSERT_EQ(h(i, j), h(j, i));
      if ((i + j) % 5 != 0 && i != j) continue;
      double expected = 0;
      for (size_t t = 0; t < kTokens; ++t) expected += double{values[t * kCols + i]} * values[t * kCols + j];
      const double tolerance = 1e-5 * std::sqrt(size[i] * size[j]);
      ASSERT_NEAR(h(i, j), expected, tolerance) << i << ", " << j;
      ASSERT_NEAR(of_often(i, j), expected, tolerance) << i << ", " << j;
    }
  }
  EXPECT_NEAR(once.Sum(7, 7), size[7], 1e-5 * size[7]);
  EXPECT_NEAR(once.Sum(kCols - 1, kCols - 1), size[kCols - 1], 1e-5 * size[kCols - 1]);
}

TEST_P(GramOn, WeightsMayLieAnywhere) {
  const Array x = Tokens(70, 33, DType::kBF16, 3);
  std::vector<float> weights(70, 0.25f);
  weights[3] = 2;
  const Array there = CopyTo(device(), x.view()), of_tokens = CopyTo(device(), ConstTensor(weights));
  Gram a(33, device()), b(33, device());
  a.Add(there.view(), weights);
  b.AddWeighted(there.view(), of_tokens.view());
  Matrix<float> from_host(33, 33), from_device(33, 33);
  a.CopyScaled(1, from_host);
  b.CopyScaled(1, from_device);
  EXPECT_TRUE(SameBytes(from_host, from_device));
  weights[5] = -1;
  EXPECT_THAT(MessageOf([&] { a.Add(there.view(), weights); }), testing::HasSubstr("token 5 weighs -1"));
}

// Whole runs may be added one by one or together, and once more gives the same.
TEST_P(GramOn, BytesDoNotDependOnHowRunsAreAdded) {
  constexpr size_t kRun = 2048, kRuns = 3, kCols = 200;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Array there = CopyTo(device(), Tokens(kRun * kRuns - 100, kCols, dtype, 4).view());
    const ConstTensor x = there.view();
    Gram together(kCols, device()), again(kCols, device()), apart(kCols, device());
    together.Add(x);
    again.Add(x);
    for (size_t first = 0; first < x.rows; first += kRun)
      apart.Add(x.Rows(first, std::min(kRun, x.rows - first)));
    Matrix<float> a(kCols, kCols), b(kCols, kCols), c(kCols, kCols);
    together.CopyScaled(1e-3, a);
    again.CopyScaled(1e-3, b);
    apart.CopyScaled(1e-3, c);
    EXPECT_TRUE(SameBytes(a, b));
    EXPECT_TRUE(SameBytes(a, c));
    EXPECT_EQ(together.ColumnSums(), apart.ColumnSums());
  }
}

// The worst case of sums that are cut off: all addends alike.
TEST_P(GramOn, ConstantChannelsKeepTheirPrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<float> values;
    for (size_t t = 0; t < 6000; ++t) values.insert(values.end(), {0.3f, -17.1f, 1e-3f});
    const Array x = FromFloats(values, 6000, 3, dtype);
    const std::vector<float> held = Floats(x.view());
    Gram gram(3, device());
    gram.Add(CopyTo(device(), x.view()).view());
    for (size_t i = 0; i < 3; ++i) {
      const double expected = 6000 * double{held[i]} * held[i];
      EXPECT_NEAR(gram.Sum(i, i), expected, 3e-6 * expected) << DTypeName(dtype);
    }
  }
}

std::string FirstMessage(const Array& x, Device device) {
  return MessageOf([&] {
    Gram gram(x.cols(), device);
    gram.Add(CopyTo(device, x.view()).view());
    Matrix<float> out(x.cols(), x.cols());
    gram.CopyScaled(1, out);
  });
}

TEST_P(GramOn, NamesTheChannelThatCannotBeSummed) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<float> values = Floats(Tokens(600, 200, dtype, 5).view());
    values[400 * 200 + 150] = std::numeric_limits<float>::quiet_NaN();
    values[20 * 200 + 150] = -std::numeric_limits<float>::infinity();
    values[599 * 200 + 199] = std::numeric_limits<float>::infinity();
    EXPECT_THAT(
        FirstMessage(FromFloats(values, 600, 200, dtype), device()),
        testing::AllOf(testing::HasSubstr("channel 150 holds 2 NaN or infinite values among 600 tokens"),
                       testing::HasSubstr("2 of 200 channels")));
    EXPECT_THAT(FirstMessage(FromFloats({1, 1, 1, -0x1p60f}, 2, 2, dtype), device()),
                testing::HasSubstr("channel 1 reaches 1.15e+18 (1 of 2 channels"));
    EXPECT_EQ(FirstMessage(FromFloats({1, 1, 1, -0x1p59f}, 2, 2, dtype), device()), "");
  }
}

TEST_P(GramOn, BlocksAreTheBlocksOfTheWhole) {
  struct Sizes {
    size_t cols, block;
  };
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [cols, block] :
         {Sizes{1, 1}, {7, 3}, {256, 128}, {300, 128}, {390, 130}, {700, 264}, {130, 130}}) {
      for (const size_t left : {0, 3}) {
        SCOPED_TRACE(testing::Message() << DTypeName(dtype) << ' ' << cols << '/' << block);
        const Array x = Tokens(300, cols, dtype, 6);
        Framed there(device(), x.view(), left, 0);
        BlockGram gram(cols, block, device());
        gram.Add(there.view().Rows(0, 200));
        gram.Add(there.view().Rows(200, 100));
        const Matrix<double> expected = Exact(x, {}, block);
        const double tolerance = 1e-6 * LargestDiagonal(expected);
        Framed out(device(), cols, block, DType::kF32, 2, 1);
        gram.CopyScaled(2, out.view());
        EXPECT_TRUE(out.FrameIsWhole());
        const Matrix<float> h = OnHost(out.view());
        const std::vector<double> diagonal = gram.Diagonal();
        ASSERT_EQ(diagonal.size(), cols);
        for (size_t i = 0; i < cols; ++i) {
          EXPECT_NEAR(diagonal[i], expected(i, i), tolerance);
          for (size_t j = 0; j < block; ++j) {
            const size_t other = i / block * block + j;
            if (other < cols) {
              ASSERT_NEAR(h(i, j), 2 * expected(i, other), 2 * tolerance) << i << ", " << j;
            } else {
              ASSERT_EQ(h(i, j), 0.0f) << i << ", " << j;
            }
          }
        }
      }
    }
  }
}

TEST_P(GramOn, DriftSumsAreSumsOfDifferences) {
  struct Sizes {
    size_t tokens, rows, cols;
  };
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [tokens, rows, cols] :
         {Sizes{1, 1, 1}, {5, 7, 3}, {257, 130, 40}, {300, 128, 33}, {2500, 64, 72}}) {
      SCOPED_TRACE(testing::Message() << DTypeName(dtype) << ' ' << tokens);
      const Array a = RandomTensor(tokens, rows, dtype, 7), b = RandomTensor(tokens, rows, dtype, 8),
                  in = RandomTensor(tokens, cols, dtype, 9),
                  before = RandomTensor(rows, cols, DType::kF32, 10);
      Framed original(device(), a.view(), 3, 0), moved(device(), b.view(), 0, 1),
          x(device(), in.view(), 1, 1);
      std::vector<Matrix<float>> results;
      for (int i = 0; i < 2; ++i) {
        Array sum = CopyTo(device(), before.view());
        AddDriftSum(original.view(), moved.view(), x.view(), sum.view());
        AddDriftSum(original.view().Rows(0, 0), moved.view().Rows(0, 0), x.view().Rows(0, 0), sum.view());
        results.push_back(OnHost(sum.view()));
      }
      EXPECT_TRUE(SameBytes(results[0], results[1]));
      const std::vector<float> o = Floats(a.view()), m = Floats(b.view()), values = Floats(in.view()),
                               start = Floats(before.view());
      for (size_t r = 0; r < rows; ++r) {
        for (size_t c = 0; c < cols; ++c) {
          double total = start[r * cols + c], size = std::fabs(total);
          for (size_t t = 0; t < tokens; ++t) {
            float difference = o[t * rows + r] - m[t * rows + r];
            DispatchOperand(dtype,
                            [&](auto type) { difference = Widen(Narrow<decltype(type)>(difference)); });
            total += double{difference} * values[t * cols + c];
            size += std::fabs(double{difference} * values[t * cols + c]);
          }
          ASSERT_NEAR(results[0](r, c), total, 2e-6 * size) << r << ", " << c;
        }
      }
    }
  }
}

}  // namespace
}  // namespace mica
