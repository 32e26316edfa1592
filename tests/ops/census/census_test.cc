// What is counted over values: on small matrices worked by hand, against plain loops, which the processor
// equals bit by bit and a CUDA device up to roundings of FP64, and against itself.
#include "ops/census/census.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "tests/ops/devices.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;

class CensusOn : public OnDevices {
 protected:
  // Of sums of what is not negative.
  double tolerance() const { return GetParam() ? 1e-12 : 0.0; }
};
MICA_OVER_DEVICES(CensusOn);

// ---- worked by hand ----

Matrix<float> Small() {
  Matrix<float> x(3, 3);
  const float values[] = {1,  -2, 0,  //
                          3,  0,  0,  //
                          -2, 4,  0};
  std::copy_n(values, 9, x.data());
  return x;
}

TEST_P(CensusOn, SquaresOfASmallMatrix) {
  const Matrix<float> small = Small();
  const Array x = CopyTo(device(), small);
  EXPECT_THAT(ColumnSquares(x.view()), ElementsAre(14, 20, 0));
  const std::vector<double> weights = {1, 2, 0.5};
  EXPECT_THAT(ColumnSquares(x.view(), weights), ElementsAre(21, 12, 0));
  Array rows(1, 3, DType::kF32, device());
  RowSquares(x.view(), rows.view());
  const Matrix<float> here = OnHost(rows.view());
  EXPECT_THAT(std::vector<float>(here.data(), here.data() + 3), ElementsAre(5, 9, 20));
}

TEST_P(CensusOn, ScaledEnergiesOfASmallMatrix) {
  const Matrix<float> small = Small();
  const std::vector<double> factors = {1, 0.5, 3};
  // In these units 1 -1 0, 3 0 0, -2 2 0.
  const ScaledEnergies energies = MeasureScaled(CopyTo(device(), small).view(), factors, 1e-30);
  EXPECT_THAT(energies.row, ElementsAre(DoubleEq(2.0 / 3), DoubleEq(3), DoubleEq(8.0 / 3)));
  EXPECT_THAT(energies.col, ElementsAre(DoubleEq(1.5 + 3 + 1.5), DoubleEq(1.5 + 1.5), 0));
  const Matrix<float> zeros(2, 3, 0.0f);
  EXPECT_THAT(MeasureScaled(CopyTo(device(), zeros).view(), factors, 0.25).row, ElementsAre(0.25, 0.25));
}

TEST_P(CensusOn, MediansOfASmallMatrix) {
  const Matrix<float> small = Small();
  EXPECT_THAT(ColumnMedians(CopyTo(device(), small).view()), ElementsAre(2, 4, 0));
}

TEST_P(CensusOn, ScoresOfASmallMatrix) {
  const Matrix<float> small = Small();
  // Over their means, 14/3 and 20/3: 3/14, 27/14, 12/14 and 12/20, 0, 48/20; quarters of octaves from 2^-32.
  std::vector<uint64_t> expected(kScoreBins, 0);
  expected[128 - 9] = expected[128 + 3] = expected[128 - 1] = 1;
  expected[128 - 3] = expected[128 + 5] = 1;
  expected[0] = 4;
  EXPECT_EQ(ScoreHistogram(CopyTo(device(), small).view(), std::vector<float>{1, 1, 1}), expected);
}

TEST_P(CensusOn, ScoresOnTheEdgesOfBins) {
  // Means of 1 with scores 4^k beside them; equal scores are their mean.
  Matrix<float> x(300, 3);
  for (size_t r = 0; r < x.rows(); ++r) {
    x(r, 0) = r % 2 == 0 ? 0.1f : -0.1f;
    x(r, 1) = 1e-12f;
    x(r, 2) = r < 75 ? 2.0f : 0.0f;
  }
  std::vector<uint64_t> expected(kScoreBins, 0);
  expected[128] = 600;
  expected[128 + 8] = 75;
  expected[0] = 225;
  EXPECT_EQ(ScoreHistogram(CopyTo(device(), x).view(), std::vector<float>(300, 1.0f)), expected);
}

// ---- against plain loops ----

enum class Kind { kNormal, kStrange, kTied };

// kNormal: of a normal distribution. kStrange: sizes from 1e-20 to 1e20, zeros of both signs, columns of
// zeros and of one size. kTied: few different values, all between 1 and 1.2.
Matrix<float> Values(size_t rows, size_t cols, Kind kind, uint32_t seed) {
  const std::vector<float> random = RandomValues(rows * cols, seed);
  Matrix<float> x(rows, cols);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) {
      const float value = random[r * cols + c];
      const size_t hash = (7 * r + 13 * c + r * c) % 17;
      x(r, c) = value;
      if (kind == Kind::kTied) x(r, c) = std::copysign(1.0f + static_cast<float>(hash) / 100, value);
      if (kind != Kind::kStrange) continue;
      if (hash < 3) x(r, c) = std::copysign(0.0f, value);
      if (hash == 4) x(r, c) *= 1e-20f;
      if (hash == 5) x(r, c) *= 1e15f;
      if (hash == 6 && c % 3 == 0) x(r, c) *= 1e20f;
      if (c % 7 == 3) x(r, c) = std::copysign(0.0f, value);
      if (c % 7 == 4) x(r, c) = std::copysign(1e-20f, value);
      if (c % 7 == 5) x(r, c) = std::copysign(0.3f, value);
    }
  }
  return x;
}

struct Case {
  size_t rows, cols;
  Kind kind;
};
std::vector<Case> Cases() {
  std::vector<Case> cases;
  constexpr std::pair<size_t, size_t> kShapes[] = {{1, 1},     {2, 3},     {1, 300},   {300, 1},  {31, 16},
                                                   {64, 17},   {65, 33},   {255, 32},  {256, 64}, {257, 31},
                                                   {300, 300}, {1025, 40}, {3000, 18}, {5001, 17}};
  for (const auto& [rows, cols] : kShapes) {
    for (const Kind kind : {Kind::kNormal, Kind::kStrange, Kind::kTied}) cases.push_back({rows, cols, kind});
  }
  return cases;
}
std::string NameOf(const Case& of) {
  return std::to_string(of.rows) + " x " + std::to_string(of.cols) + ", kind " +
         std::to_string(static_cast<int>(of.kind));
}

// Same up to a relative tolerance; infinities are the same as themselves.
template <typename T>
void ExpectClose(const std::vector<T>& found, const std::vector<T>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i] == expected[i]) continue;
    ASSERT_LE(std::fabs(double{found[i]} - double{expected[i]}), tolerance * std::fabs(double{expected[i]}))
        << i << ": " << found[i] << ", expected " << expected[i];
  }
}

std::vector<double> Positive(size_t count, uint32_t seed) {
  std::vector<double> values;
  for (const float value : RandomValues(count, seed)) values.push_back(std::exp(double{value}));
  return values;
}

Tensor RowOf(std::vector<double>& values) {
  return {reinterpret_cast<std::byte*>(values.data()),
          1,
          values.size(),
          values.size(),
          DType::kF64,
          Device::Cpu()};
}

TEST_P(CensusOn, SquaresAreThoseOfPlainLoops) {
  for (const Case& of : Cases()) {
    SCOPED_TRACE(NameOf(of));
    const Matrix<float> x = Values(of.rows, of.cols, of.kind, 1);
    Framed there(device(), x, 3, 2);
    for (const bool weighted : {false, true}) {
      const std::vector<double> weights = weighted ? Positive(of.rows, 2) : std::vector<double>();
      // Added to what is there.
      std::vector<double> expected = Positive(of.cols, 3);
      Framed sums(device(), RowOf(expected), 2, 1);
      for (size_t r = 0; r < of.rows; ++r) {
        for (size_t c = 0; c < of.cols; ++c) expected[c] += (weighted ? weights[r] : 1.0) * x(r, c) * x(r, c);
      }
      AddColumnSquares(there.view(), weights, sums.view());
      const std::vector<double> found = DoublesOf(sums.view());
      ExpectClose(found, expected, tolerance());
      EXPECT_TRUE(sums.FrameIsWhole());
    }
    std::vector<float> expected;
    for (size_t r = 0; r < of.rows; ++r) {
      double sum = 0;
      for (size_t c = 0; c < of.cols; ++c) sum += double{x(r, c)} * x(r, c);
      expected.push_back(static_cast<float>(sum));
    }
    Framed squares(device(), 1, of.rows, DType::kF32, 1, 3);
    RowSquares(there.view(), squares.view());
    const Matrix<float> found = OnHost(squares.view());
    ExpectClose(std::vector<float>(found.data(), found.data() + found.size()), expected,
                GetParam() ? 0x1p-23 : 0.0);
    EXPECT_TRUE(squares.FrameIsWhole());
  }
}

TEST_P(CensusOn, ScaledEnergiesAreThoseOfPlainLoops) {
  for (const Case& of : Cases()) {
    SCOPED_TRACE(NameOf(of));
    const Matrix<float> x = Values(of.rows, of.cols, of.kind, 4);
    Framed there(device(), x, 1, 3);
    std::vector<double> factors = Positive(of.cols, 5);
    factors[of.cols / 2] = 0;
    ScaledEnergies expected{std::vector<double>(of.rows, 0.0), std::vector<double>(of.cols, 0.0)};
    for (size_t r = 0; r < of.rows; ++r) {
      for (size_t c = 0; c < of.cols; ++c) {
        const double y = x(r, c) * factors[c];
        expected.row[r] += y * y;
      }
      expected.row[r] = std::max(expected.row[r] / static_cast<double>(of.cols), 1e-30);
    }
    for (size_t r = 0; r < of.rows; ++r) {
      for (size_t c = 0; c < of.cols; ++c) {
        const double y = x(r, c) * factors[c];
        expected.col[c] += y * y / expected.row[r];
      }
    }
    const ScaledEnergies found = MeasureScaled(there.view(), factors, 1e-30);
    ExpectClose(found.row, expected.row, tolerance());
    ExpectClose(found.col, expected.col, tolerance());
  }
}

TEST_P(CensusOn, ScaledEnergiesShowWhatIsNotFinite) {
  Matrix<float> x = Values(5, 300, Kind::kNormal, 6);
  x(1, 299) = std::numeric_limits<float>::quiet_NaN();
  x(3, 17) = -std::numeric_limits<float>::infinity();
  const ScaledEnergies found =
      MeasureScaled(CopyTo(device(), x).view(), std::vector<double>(300, 1.0), 1e-30);
  for (const size_t r : {0, 2, 4}) EXPECT_TRUE(std::isfinite(found.row[r]));
  EXPECT_TRUE(std::isnan(found.row[1]));
  EXPECT_TRUE(std::isinf(found.row[3]));
}

TEST_P(CensusOn, MediansAreExact) {
  for (const Case& of : Cases()) {
    SCOPED_TRACE(NameOf(of));
    Matrix<float> x = Values(of.rows, of.cols, of.kind, 7);
    // One column of a single size among the others: no first bits tell its values apart.
    for (size_t r = 0; r < of.rows; ++r) x(r, of.cols / 2) = 3.0f;
    std::vector<float> expected;
    for (size_t c = 0; c < of.cols; ++c) {
      std::vector<float> sizes;
      for (size_t r = 0; r < of.rows; ++r) {
        if (x(r, c) != 0) sizes.push_back(std::fabs(x(r, c)));
      }
      std::sort(sizes.begin(), sizes.end());
      expected.push_back(sizes.empty() ? 0.0f : sizes[sizes.size() / 2]);
    }
    Framed there(device(), x, 5, 2);
    EXPECT_EQ(ColumnMedians(there.view()), expected);
  }
}

TEST_P(CensusOn, MediansOfWhatIsAlmostZeroOrInfinite) {
  Matrix<float> x(40, 4);
  for (size_t r = 0; r < x.rows(); ++r) {
    x(r, 0) = std::numeric_limits<float>::denorm_min() * static_cast<float>(r % 5);
    x(r, 1) = std::numeric_limits<float>::max() / static_cast<float>(r + 1);
    x(r, 2) = r < 21 ? std::numeric_limits<float>::infinity() : 1.0f;
    x(r, 3) = r == 11 ? -1e-20f : -0.0f;
  }
  EXPECT_THAT(
      ColumnMedians(CopyTo(device(), x).view()),
      ElementsAre(3 * std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::max() / 20,
                  std::numeric_limits<float>::infinity(), 1e-20f));
}

size_t Bin(double ratio) {
  const double position = ratio > 0 ? (std::log2(ratio) - kFirstScoreOctave) * kScoreBinsPerOctave : 0.0;
  return static_cast<size_t>(std::clamp(position, 0.0, static_cast<double>(kScoreBins - 1)));
}

// On a CUDA device a count may be off by the scores that lie within 1e-12 of an edge of its bin.
TEST_P(CensusOn, HistogramsAreThoseOfPlainLoops) {
  for (const Case& of : Cases()) {
    SCOPED_TRACE(NameOf(of));
    const Matrix<float> x = Values(of.rows, of.cols, of.kind, 8);
    std::vector<float> importance;
    for (const double value : Positive(of.rows, 9)) importance.push_back(static_cast<float>(value));
    const auto score = [&](size_t r, size_t c) { return importance[r] * x(r, c) * x(r, c); };
    std::vector<uint64_t> exact(kScoreBins, 0), least(kScoreBins, 0), most(kScoreBins, 0);
    for (size_t c = 0; c < of.cols; ++c) {
      double mean = 0;
      for (size_t r = 0; r < of.rows; ++r) mean += score(r, c);
      mean /= static_cast<double>(of.rows);
      for (size_t r = 0; r < of.rows; ++r) {
        const double ratio = score(r, c) / mean;
        const size_t low = Bin(ratio * (1 - 1e-12)), high = Bin(ratio * (1 + 1e-12));
        ++exact[Bin(ratio)];
        least[low] += low == high;
        ++most[low];
        most[high] += low != high;
      }
    }
    Framed there(device(), x, 2, 2);
    const std::vector<uint64_t> found = ScoreHistogram(there.view(), importance);
    if (!GetParam()) {
      EXPECT_EQ(found, exact);
      continue;
    }
    ASSERT_EQ(found.size(), kScoreBins);
    uint64_t all = 0;
    for (size_t bin = 0; bin < kScoreBins; ++bin) {
      EXPECT_GE(found[bin], least[bin]) << bin;
      EXPECT_LE(found[bin], most[bin]) << bin;
      all += found[bin];
    }
    EXPECT_EQ(all, of.rows * of.cols);
  }
}

// ---- against itself ----

TEST_P(CensusOn, TwoRunsAreEqual) {
  for (const Kind kind : {Kind::kNormal, Kind::kStrange}) {
    const Matrix<float> x = Values(3000, 130, kind, 10);
    const Array there = CopyTo(device(), x);
    const std::vector<double> weights = Positive(x.rows(), 11), factors = Positive(x.cols(), 12);
    const std::vector<float> importance(weights.begin(), weights.end());
    std::vector<std::vector<double>> doubles;
    std::vector<std::vector<float>> floats;
    std::vector<std::vector<uint64_t>> counts;
    for (int run = 0; run < 2; ++run) {
      doubles.push_back(ColumnSquares(there.view(), weights));
      const ScaledEnergies energies = MeasureScaled(there.view(), factors, 1e-30);
      doubles.push_back(energies.row);
      doubles.push_back(energies.col);
      floats.push_back(ColumnMedians(there.view()));
      Array squares(1, x.rows(), DType::kF32, device());
      RowSquares(there.view(), squares.view());
      const Matrix<float> here = OnHost(squares.view());
      floats.emplace_back(here.data(), here.data() + here.size());
      counts.push_back(ScoreHistogram(there.view(), importance));
    }
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(doubles[i], doubles[i + 3]);
    for (size_t i = 0; i < 2; ++i) EXPECT_EQ(floats[i], floats[i + 2]);
    EXPECT_EQ(counts[0], counts[1]);
  }
}

}  // namespace
}  // namespace mica
