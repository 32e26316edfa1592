// CompensateDrift against a dense FP64 solve of the formula.
#include "compress/curvature/drift_compensation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "tests/error_message.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

using Dense = std::vector<std::vector<double>>;  // [rows][cols]

Matrix<float> Compensate(MatrixView<const float> w, const InputMoments& moments, double strength,
                         double damping) {
  return CompensateDrift(w, moments, DampedFactor(moments.h, {}, damping), strength);
}

// X with X a = b by elimination with pivots. a: [n][n], b: [rows][n].
Dense SolveRight(const Dense& a, const Dense& b) {
  const size_t n = a.size(), rows = b.size();
  // Transposed: a^T X^T = b^T, the right sides as further columns.
  Dense system(n, std::vector<double>(n + rows));
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) system[i][j] = a[j][i];
    for (size_t r = 0; r < rows; ++r) system[i][n + r] = b[r][i];
  }
  for (size_t k = 0; k < n; ++k) {
    size_t pivot = k;
    for (size_t i = k; i < n; ++i) {
      if (std::fabs(system[i][k]) > std::fabs(system[pivot][k])) pivot = i;
    }
    std::swap(system[k], system[pivot]);
    for (size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = system[i][k] / system[k][k];
      for (size_t j = k; j < n + rows; ++j) system[i][j] -= factor * system[k][j];
    }
  }
  Dense x(rows, std::vector<double>(n));
  for (size_t r = 0; r < rows; ++r) {
    for (size_t i = 0; i < n; ++i) x[r][i] = system[i][n + r] / system[i][i];
  }
  return x;
}

// Tokens of two models and what a matrix sees of them: correlated inputs x, those of the original model and
// the residual streams that the matrix adds to.
struct Layer {
  Layer(size_t rows, size_t cols, std::vector<size_t> dead_channels = {})
      : w(rows, cols), h(cols, cols), drift(cols, cols), residual(rows, cols), dead(cols, false) {
    constexpr size_t kTokens = 400;
    for (const size_t j : dead_channels) dead[j] = true;
    const std::vector<float> weights = RandomValues(rows * cols, 20), common = RandomValues(kTokens, 21),
                             own = RandomValues(kTokens * cols, 22),
                             moves = RandomValues(kTokens * cols, 23, 0.2f),
                             streams = RandomValues(kTokens * rows, 24),
                             stream_moves = RandomValues(kTokens * rows, 25, 0.3f);
    std::copy(weights.begin(), weights.end(), w.data());
    x.assign(kTokens, std::vector<double>(cols));
    x_original = x;
    r.assign(kTokens, std::vector<double>(rows));
    r_original = r;
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t j = 0; j < cols; ++j) {
        x[t][j] = dead[j] ? 0.0 : 0.5 * common[t] + own[t * cols + j];
        // The original's input follows that of the moved one in part, as it does in a model.
        x_original[t][j] = 1.1 * x[t][j] + moves[t * cols + j] + (j > 0 ? 0.1 * x[t][j - 1] : 0.0);
      }
      for (size_t o = 0; o < rows; ++o) {
        r[t][o] = streams[t * rows + o];
        r_original[t][o] = r[t][o] + stream_moves[t * rows + o] + 0.2 * x[t][o % cols];
      }
    }
    Mean(x, x, nullptr, h);
    Mean(x_original, x, &x, drift);
    Mean(r_original, x, &r, residual);
  }

  // E[(a - less) b^T].
  static void Mean(const Dense& a, const Dense& b, const Dense* less, Matrix<float>& out) {
    for (size_t i = 0; i < out.rows(); ++i) {
      for (size_t j = 0; j < out.cols(); ++j) {
        double sum = 0;
        for (size_t t = 0; t < a.size(); ++t) sum += (a[t][i] - (less ? (*less)[t][i] : 0.0)) * b[t][j];
        out(i, j) = static_cast<float>(sum / static_cast<double>(a.size()));
      }
    }
  }

  InputMoments Moments(bool with_residual) const {
    return {h, drift, with_residual ? residual.view() : MatrixView<const float>()};
  }

  Matrix<float> w, h, drift, residual;
  std::vector<bool> dead;
  Dense x, x_original, r, r_original;
};

// The formula in FP64, on the channels that live.
Dense Compensated(const Layer& layer, bool with_residual, double strength, double damping) {
  const size_t rows = layer.w.rows(), cols = layer.w.cols();
  std::vector<size_t> alive;
  for (size_t j = 0; j < cols; ++j) {
    if (!layer.dead[j]) alive.push_back(j);
  }
  Dense a, b;
  for (const size_t i : alive) {
    a.emplace_back();
    for (const size_t j : alive) a.back().push_back(layer.h(i, j) * (i == j ? 1 + damping : 1.0));
  }
  for (size_t r = 0; r < rows; ++r) {
    b.emplace_back();
    for (const size_t j : alive) {
      double sum = with_residual ? layer.residual(r, j) : 0.0;
      for (size_t i = 0; i < cols; ++i) sum += double{layer.w(r, i)} * layer.drift(i, j);
      b.back().push_back(sum);
    }
  }
  const Dense change = SolveRight(a, b);
  Dense result(rows, std::vector<double>(cols));
  for (size_t r = 0; r < rows; ++r) {
    for (size_t j = 0; j < cols; ++j) result[r][j] = layer.w(r, j);
    for (size_t k = 0; k < alive.size(); ++k) result[r][alive[k]] += strength * change[r][k];
  }
  return result;
}

// The largest difference from `expected` over the largest change that `expected` makes to w.
double WorstOfChange(const Matrix<float>& actual, const Dense& expected, const Matrix<float>& w) {
  double worst = 0, change = 0;
  for (size_t r = 0; r < w.rows(); ++r) {
    for (size_t j = 0; j < w.cols(); ++j) {
      const double error = std::fabs(actual(r, j) - expected[r][j]);
      if (!(error <= worst)) worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
      change = std::max(change, std::fabs(expected[r][j] - w(r, j)));
    }
  }
  return worst / change;
}

TEST(CompensateDrift, IsTheFormulaAtEveryStrengthAndDampingWithAndWithoutResidual) {
  for (const auto& [rows, cols] : {std::pair<size_t, size_t>{1, 1}, {5, 2}, {13, 40}, {40, 131}}) {
    const Layer layer(rows, cols);
    for (const bool residual : {false, true}) {
      for (const double strength : {0.5, 1.0}) {
        for (const double damping : {0.0, 0.01, 1.0}) {
          const Matrix<float> actual = Compensate(layer.w, layer.Moments(residual), strength, damping);
          EXPECT_LE(WorstOfChange(actual, Compensated(layer, residual, strength, damping), layer.w), 2e-5)
              << rows << " x " << cols << (residual ? " residual" : "") << ", strength " << strength
              << ", damping " << damping;
        }
      }
    }
  }
}

TEST(CompensateDrift, StrengthZeroKeepsEveryBit) {
  const Layer layer(13, 40);
  const Matrix<float> actual = Compensate(layer.w, layer.Moments(true), 0.0, 0.01);
  EXPECT_EQ(std::memcmp(actual.data(), layer.w.data(), actual.size() * sizeof(float)), 0);
}

TEST(CompensateDrift, LeavesNothingThatTheInputsExplain) {
  // Normal equations of least squares: the error of the outputs is orthogonal to every input.
  const Layer layer(7, 30);
  const auto worst = [&](const Matrix<float>& w) {
    Dense error(layer.x.size(), std::vector<double>(7));
    for (size_t t = 0; t < layer.x.size(); ++t) {
      for (size_t o = 0; o < 7; ++o) {
        error[t][o] = layer.r_original[t][o] - layer.r[t][o];
        for (size_t j = 0; j < 30; ++j)
          error[t][o] += layer.w(o, j) * layer.x_original[t][j] - w(o, j) * layer.x[t][j];
      }
    }
    Matrix<float> correlation(7, 30);
    Layer::Mean(error, layer.x, nullptr, correlation);
    double largest = 0;
    for (size_t i = 0; i < correlation.size(); ++i)
      largest = std::max(largest, std::fabs(double{correlation.data()[i]}));
    return largest;
  };
  EXPECT_GT(worst(layer.w), 0.1);
  EXPECT_LT(worst(Compensate(layer.w, layer.Moments(true), 1.0, 0.0)), 1e-5);
  EXPECT_GT(worst(Compensate(layer.w, layer.Moments(false), 1.0, 0.0)), 0.1);  // the streams' share
}

TEST(CompensateDrift, DeadChannelsKeepTheirWeightsAndDoNotDisturbTheOthers) {
  const Layer layer(13, 40, {0, 17, 39});
  for (const double damping : {0.0, 0.01}) {
    for (const bool residual : {false, true}) {
      const Matrix<float> actual = Compensate(layer.w, layer.Moments(residual), 1.0, damping);
      EXPECT_LE(WorstOfChange(actual, Compensated(layer, residual, 1.0, damping), layer.w), 2e-5)
          << "damping " << damping;
      for (const size_t j : {size_t{0}, size_t{17}, size_t{39}}) {
        for (size_t r = 0; r < 13; ++r) EXPECT_EQ(actual(r, j), layer.w(r, j));
      }
    }
  }
  const Layer silent(3, 2, {0, 1});  // no channel has ever spoken
  const Matrix<float> actual = Compensate(silent.w, silent.Moments(true), 1.0, 0.01);
  EXPECT_EQ(std::memcmp(actual.data(), silent.w.data(), actual.size() * sizeof(float)), 0);
}

TEST(CompensateDrift, DoublesTheDampingUntilTheMomentsArePositiveDefinite) {
  Layer layer(13, 40);
  double mean = 0;
  for (size_t j = 0; j < 40; ++j) mean += layer.h(j, j) / 40.0;
  // Channels 3 and 4 with correlation above 1 and no other: eigenvalues 2 + 0.01 and -0.01 of the mean.
  for (const size_t i : {size_t{3}, size_t{4}}) {
    for (size_t j = 0; j < 40; ++j) layer.h(i, j) = layer.h(j, i) = 0.0f;
  }
  layer.h(3, 3) = layer.h(4, 4) = static_cast<float>(mean);
  layer.h(3, 4) = layer.h(4, 3) = static_cast<float>(1.01 * mean);
  // From nothing the first step is 1e-6; 8192 of them are too few, 16384 are enough.
  for (const auto& [asked, taken] :
       {std::pair{0.0, 0.016384}, {0.001, 0.016}, {0.004, 0.016}, {0.03, 0.03}}) {
    const Matrix<float> actual = Compensate(layer.w, layer.Moments(true), 1.0, asked);
    EXPECT_LE(WorstOfChange(actual, Compensated(layer, true, 1.0, taken), layer.w), 1e-4)
        << "damping " << asked;
    EXPECT_GT(WorstOfChange(actual, Compensated(layer, true, 1.0, 2 * taken), layer.w), 0.01);
  }
}

TEST(CompensateDrift, RefusesMomentsThatNoDampingMakesPositiveDefinite) {
  Layer layer(3, 5);
  layer.h(1, 2) = layer.h(2, 1) = 1e6f;
  ExpectError([&] { Compensate(layer.w, layer.Moments(false), 1.0, 0.01); },
              {"5 channels", "not positive definite"});
  Layer poisoned(3, 5);
  poisoned.h(4, 4) = std::numeric_limits<float>::quiet_NaN();
  ExpectError([&] { Compensate(poisoned.w, poisoned.Moments(false), 1.0, 0.01); },
              {"row 4, column 4 is nan, expected a finite number"});
}

}  // namespace
}  // namespace mica
