#include "ops/linalg/linalg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/threads.h"

namespace mica {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Matrix<float> Random(size_t rows, size_t cols, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Matrix<float> m(rows, cols);
  for (size_t i = 0; i < m.size(); ++i) m.data()[i] = normal(generator);
  return m;
}

// x x^T / tokens + ridge I for x with 2 n tokens: symmetric, positive definite.
Matrix<float> RandomMoments(size_t n, uint32_t seed, float ridge = 0.05f) {
  const Matrix<float> x = Random(n, 2 * n, seed);
  Matrix<float> h(n, n);
  Gemm(false, true, 1.0f / static_cast<float>(2 * n), x, x, 0.0f, h);
  for (size_t i = 0; i < n; ++i) {
    h(i, i) += ridge;
    for (size_t j = 0; j < i; ++j) h(j, i) = h(i, j);
  }
  return h;
}

Matrix<double> ToDouble(MatrixView<const float> a) {
  Matrix<double> out(a.rows, a.cols);
  for (size_t i = 0; i < a.rows; ++i) {
    for (size_t j = 0; j < a.cols; ++j) out(i, j) = a(i, j);
  }
  return out;
}

// The textbook loops in FP64.
Matrix<double> ScalarCholesky(const Matrix<double>& a) {
  const size_t n = a.rows();
  Matrix<double> l(n, n, 0.0);
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j; i < n; ++i) {
      double sum = a(i, j);
      for (size_t k = 0; k < j; ++k) sum -= l(i, k) * l(j, k);
      l(i, j) = i == j ? std::sqrt(sum) : sum / l(j, j);
    }
  }
  return l;
}

// inverse of a = L L^T, column by column.
Matrix<double> ScalarInverse(const Matrix<double>& a) {
  const size_t n = a.rows();
  const Matrix<double> l = ScalarCholesky(a);
  Matrix<double> x(n, n, 0.0);
  for (size_t c = 0; c < n; ++c) {
    std::vector<double> y(n, 0.0);
    for (size_t i = c; i < n; ++i) {
      double sum = i == c ? 1.0 : 0.0;
      for (size_t k = c; k < i; ++k) sum -= l(i, k) * y[k];
      y[i] = sum / l(i, i);
    }
    for (size_t i = n; i-- > 0;) {
      double sum = y[i];
      for (size_t k = i + 1; k < n; ++k) sum -= l(k, i) * x(k, c);
      x(i, c) = sum / l(i, i);
    }
  }
  return x;
}

struct Threading {
  explicit Threading(int threads) { SetThreads(threads); }
  ~Threading() { SetThreads(0); }
};

TEST(Gemm, HandWorked) {
  const float a_values[] = {1, 2, 3, 4, 5, 6};     // 2 x 3
  const float b_values[] = {7, 8, 9, 10, 11, 12};  // 3 x 2
  Matrix<float> c(2, 2, kNan);
  Gemm(false, false, 1.0f, MatrixView<const float>(a_values, 2, 3), MatrixView<const float>(b_values, 3, 2),
       0.0f, c);
  EXPECT_EQ(c(0, 0), 58);
  EXPECT_EQ(c(0, 1), 64);
  EXPECT_EQ(c(1, 0), 139);
  EXPECT_EQ(c(1, 1), 154);
}

class GemmShapes : public testing::TestWithParam<std::tuple<size_t, size_t, size_t>> {};

TEST_P(GemmShapes, AgreesWithScalarLoops) {
  const auto [m, n, k] = GetParam();
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      const Matrix<float> a = ta ? Random(k, m, 1) : Random(m, k, 1),
                          b = tb ? Random(n, k, 2) : Random(k, n, 2);
      // c is a window of a larger matrix, whose frame must not change.
      Matrix<float> frame = Random(m + 2, n + 3, 3);
      const Matrix<float> before = frame.Clone();
      Gemm(ta, tb, -1.5f, a, b, 0.5f, frame.view().Rows(1, m).Cols(2, n));
      for (size_t i = 0; i < m + 2; ++i) {
        for (size_t j = 0; j < n + 3; ++j) {
          if (i < 1 || i > m || j < 2 || j >= n + 2) {
            ASSERT_EQ(frame(i, j), before(i, j));
            continue;
          }
          double sum = 0, magnitude = 1;
          for (size_t p = 0; p < k; ++p) {
            const double product = double{ta ? a(p, i - 1) : a(i - 1, p)} * (tb ? b(j - 2, p) : b(p, j - 2));
            sum += product;
            magnitude += std::abs(product);
          }
          ASSERT_NEAR(frame(i, j), 0.5 * before(i, j) - 1.5 * sum, 1e-6 * magnitude) << i << ' ' << j;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AroundTiles, GemmShapes,
                         testing::Values(std::tuple{1, 1, 1}, std::tuple{3, 5, 7}, std::tuple{255, 513, 17},
                                         std::tuple{257, 511, 33}, std::tuple{300, 1, 128},
                                         std::tuple{1, 600, 129}));

TEST(Gemm, BetaZeroOverwritesNan) {
  const Matrix<float> a = Random(20, 30, 1), b = Random(30, 40, 2);
  Matrix<float> c(20, 40, kNan);
  Gemm(false, false, 1.0f, a, b, 0.0f, c);
  for (size_t i = 0; i < c.size(); ++i) ASSERT_TRUE(std::isfinite(c.data()[i]));
}

TEST(Cholesky, HandWorked) {
  const float values[] = {4, 99, 99, 2, 10, 99, 4, -7, 30};  // the upper triangle is not read
  Matrix<float> a(3, 3);
  std::copy_n(values, 9, a.data());
  ASSERT_TRUE(CholeskyLower(a.view()));
  const float expected[] = {2, 0, 0, 1, 3, 0, 2, -3, std::sqrt(17.0f)};
  for (size_t i = 0; i < 9; ++i) EXPECT_FLOAT_EQ(a.data()[i], expected[i]) << i;
}

TEST(Cholesky, RefusesWhatIsNotPositiveDefinite) {
  for (const size_t n : {2, 300}) {
    for (const float bad : {-1.0f, 0.0f, kNan, std::numeric_limits<float>::infinity()}) {
      for (const size_t where : {size_t{0}, n / 2, n - 1}) {
        Matrix<float> a(n, n, 0.0f);
        for (size_t i = 0; i < n; ++i) a(i, i) = 1;
        a(where, where) = bad;
        EXPECT_FALSE(CholeskyLower(a.Clone().view())) << n << ' ' << bad;
        EXPECT_FALSE(CholeskyOfInverseUpper(a.Clone().view())) << n << ' ' << bad;
      }
    }
  }
  Matrix<float> off_diagonal(300, 300, 0.0f);
  for (size_t i = 0; i < 300; ++i) off_diagonal(i, i) = 1;
  off_diagonal(280, 3) = off_diagonal(3, 280) = kNan;
  EXPECT_FALSE(CholeskyLower(off_diagonal.Clone().view()));
  EXPECT_FALSE(CholeskyOfInverseUpper(off_diagonal.Clone().view()));
}

class Factorisations : public testing::TestWithParam<size_t> {};

TEST_P(Factorisations, AgreeWithScalarLoopsInDouble) {
  const size_t n = GetParam();
  const Matrix<float> h = RandomMoments(n, 7);
  const Matrix<double> reference = ScalarCholesky(ToDouble(h)), inverse = ScalarInverse(ToDouble(h));
  double largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, inverse(i, i));

  Matrix<float> l = h.Clone();
  ASSERT_TRUE(CholeskyLower(l.view()));
  Matrix<double> l64 = ToDouble(h);
  ASSERT_TRUE(CholeskyLowerFp64(l64.view()));
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      ASSERT_NEAR(l(i, j), reference(i, j), 2e-5) << i << ' ' << j;
      ASSERT_NEAR(l64(i, j), reference(i, j), 1e-12) << i << ' ' << j;
    }
  }

  // U by its definition: upper, positive diagonal, U^T U = H^-1.
  Matrix<float> u = h.Clone();
  ASSERT_TRUE(CholeskyOfInverseUpper(u));
  const Matrix<double> factor = ScalarCholesky(inverse);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j)
      ASSERT_NEAR(u(i, j), factor(j, i), 2e-5 * std::sqrt(largest)) << i << ' ' << j;
  }
}

INSTANTIATE_TEST_SUITE_P(AroundTiles, Factorisations, testing::Values(1, 2, 37, 256, 257, 530));

TEST(CholeskyOfInverseUpper, HandWorked) {
  // H = [2 1; 1 1]: H^-1 = [1 -1; -1 2] = U^T U with U = [1 -1; 0 1]. Var(x_0 | x_1) = 2 - 1 = 1, Var(x_1)
  // = 1.
  const float values[] = {2, 1, 1, 1};
  Matrix<float> h(2, 2);
  std::copy_n(values, 4, h.data());
  ASSERT_TRUE(CholeskyOfInverseUpper(h));
  EXPECT_FLOAT_EQ(h(0, 0), 1);
  EXPECT_FLOAT_EQ(h(0, 1), -1);
  EXPECT_FLOAT_EQ(h(1, 0), 0);
  EXPECT_FLOAT_EQ(h(1, 1), 1);
}

TEST(CholeskyOfInverseUpper, HoldsForStronglyCorrelatedChannels) {
  // rho^|i-j| has a tridiagonal inverse; U of an AR(1) chain: 1/U_jj^2 = 1 - rho^2 except for the last
  // channel, where it is 1.
  const size_t n = 400;
  const double rho = 0.99;
  Matrix<float> h(n, n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j)
      h(i, j) = static_cast<float>(std::pow(rho, std::abs(static_cast<double>(i) - static_cast<double>(j))));
  }
  ASSERT_TRUE(CholeskyOfInverseUpper(h));
  for (size_t j = 0; j + 1 < n; ++j) {
    ASSERT_NEAR(1 / std::pow(h(j, j), 2.0), 1 - rho * rho, 1e-5);
    ASSERT_NEAR(h(j, j + 1) / h(j, j), -rho, 2e-3);
  }
  EXPECT_NEAR(h(n - 1, n - 1), 1, 1e-6);
}

TEST(Linalg, DoesNotDependOnThreads) {
  const Matrix<float> h = RandomMoments(700, 11), b = Random(700, 900, 12);
  std::vector<Matrix<float>> results[2];
  for (const int threads : {1, 2}) {
    const Threading threading(threads);
    std::vector<Matrix<float>>& out = results[threads - 1];
    out.emplace_back(700, 900);
    Gemm(false, false, 1.0f, h, b, 0.0f, out.back());
    out.emplace_back(40, 900);  // a single tile row, computed on the calling thread
    Gemm(true, false, 1.0f, h.view().Cols(0, 40), b, 0.0f, out.back());
    out.emplace_back(40, 50);
    Gemm(true, false, 1.0f, h.view().Cols(0, 40), b.view().Cols(0, 50), 0.0f, out.back());
    out.push_back(h.Clone());
    ASSERT_TRUE(CholeskyLower(out.back().view()));
    out.push_back(h.Clone());
    ASSERT_TRUE(CholeskyOfInverseUpper(out.back()));
    out.push_back(h.Clone());
    MultiplyByUpper(false, out[out.size() - 2], 100, out.back());
  }
  for (size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_EQ(std::memcmp(results[0][i].data(), results[1][i].data(), results[0][i].size() * sizeof(float)),
              0)
        << i;
  }
}

}  // namespace
}  // namespace mica
