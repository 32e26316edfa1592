// Products, factorisations and arrangements on every device against FP64 loops.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/linalg/arrange.h"
#include "ops/linalg/linalg.h"
#include "ops/transpose/transpose.h"
#include "tests/error_message.h"
#include "tests/ops/devices.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

class LinalgOn : public OnDevices {};
MICA_OVER_DEVICES(LinalgOn);

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr size_t kSizes[] = {1, 7, 64, 65, 130, 300, 530};

Matrix<float> Random(size_t rows, size_t cols, uint32_t seed) {
  const std::vector<float> values = RandomValues(rows * cols, seed);
  Matrix<float> out(rows, cols);
  std::copy(values.begin(), values.end(), out.data());
  return out;
}

// x x^T / tokens and something on the diagonal.
Matrix<float> RandomMoments(size_t n, uint32_t seed) {
  const Matrix<float> x = Random(n, 2 * n, seed);
  Matrix<float> h(n, n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (size_t k = 0; k < 2 * n; ++k) sum += double{x(i, k)} * x(j, k);
      h(i, j) = h(j, i) = static_cast<float>(sum / static_cast<double>(2 * n) + (i == j ? 0.05 : 0));
    }
  }
  return h;
}

TEST_P(LinalgOn, ProductsOfEveryOrientationAndPrecision) {
  struct Sizes {
    size_t m, n, k;
  };
  for (const auto& [m, n, k] : {Sizes{1, 1, 1}, {7, 130, 300}, {130, 7, 64}, {65, 33, 2500}}) {
    for (int how = 0; how < 8; ++how) {
      const bool ta = how & 1, tb = how & 2;
      const auto precision = how & 4 ? ProductPrecision::k3xTf32 : ProductPrecision::kFp32;
      const Matrix<float> a = ta ? Random(k, m, 1) : Random(m, k, 1),
                          b = tb ? Random(n, k, 2) : Random(k, n, 2), c = Random(m, n, 3);
      Framed of_a(device(), a, 1, 2), of_b(device(), b, 3, 0);
      std::vector<Matrix<float>> results;
      for (const float beta : {0.5f, 0.5f, 0.0f}) {
        Framed of_c(device(), m, n, DType::kF32, 2, 1);
        if (beta != 0) Copy(c, of_c.view());  // else NaN, which must not be read
        GemmAt(precision, ta, tb, -1.5f, of_a.view(), of_b.view(), beta, of_c.view());
        EXPECT_TRUE(of_c.FrameIsWhole());
        results.push_back(OnHost(of_c.view()));
      }
      EXPECT_TRUE(SameBytes(results[0], results[1]));
      for (size_t i = 0; i < m; ++i) {
        for (size_t j = 0; j < n; ++j) {
          double sum = 0, size = 0;
          for (size_t p = 0; p < k; ++p) {
            const double term = double{ta ? a(p, i) : a(i, p)} * (tb ? b(j, p) : b(p, j));
            sum += term;
            size += std::fabs(term);
          }
          const double tolerance = 2e-6 * size + 1e-6;
          ASSERT_NEAR(results[0](i, j), -1.5 * sum + 0.5 * c(i, j), tolerance) << how << ' ' << k;
          ASSERT_NEAR(results[2](i, j), -1.5 * sum, tolerance) << how << ' ' << k;
        }
      }
    }
  }
}

TEST_P(LinalgOn, FactorAndInverseOfATriangle) {
  for (const size_t n : kSizes) {
    SCOPED_TRACE(n);
    const Matrix<float> h = RandomMoments(n, 4);
    Matrix<float> lower = h.Clone();
    for (size_t i = 0; i < n; ++i) std::fill_n(lower.row(i) + i + 1, n - i - 1, kNan);  // not read
    std::vector<Matrix<float>> factors, inverses;
    for (int i = 0; i < 2; ++i) {
      Framed a(device(), lower, 1, 2);
      ASSERT_TRUE(CholeskyLower(a.view()));
      factors.push_back(OnHost(a.view()));
      InvertLowerTriangle(a.view());
      EXPECT_TRUE(a.FrameIsWhole());
      inverses.push_back(OnHost(a.view()));
    }
    EXPECT_TRUE(SameBytes(factors[0], factors[1]));
    EXPECT_TRUE(SameBytes(inverses[0], inverses[1]));
    const Matrix<float>&l = factors[0], &inverse = inverses[0];
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        if (j > i) {
          ASSERT_EQ(l(i, j), 0.0f);
          ASSERT_EQ(inverse(i, j), 0.0f);
          continue;
        }
        double product = 0, identity = 0, size = 0;
        for (size_t k = 0; k <= j; ++k) product += double{l(i, k)} * l(j, k);
        for (size_t k = j; k <= i; ++k) {
          identity += double{l(i, k)} * inverse(k, j);
          size += std::fabs(double{l(i, k)} * inverse(k, j));
        }
        ASSERT_NEAR(product, h(i, j), 1e-5) << i << ", " << j;
        ASSERT_NEAR(identity, i == j ? 1.0 : 0.0, 2e-5 * (1 + size)) << i << ", " << j;
      }
    }
  }
}

TEST_P(LinalgOn, FactorOfTheInverse) {
  for (const size_t n : kSizes) {
    SCOPED_TRACE(n);
    const Matrix<float> h = RandomMoments(n, 5);
    Framed a(device(), h, 0, 3);
    ASSERT_TRUE(CholeskyOfInverseUpper(a.view()));
    EXPECT_TRUE(a.FrameIsWhole());
    const Matrix<float> u = OnHost(a.view());
    // U H U^T = I.
    Matrix<double> uh(n, n, 0.0);
    for (size_t i = 0; i < n; ++i) {
      for (size_t k = i; k < n; ++k) {
        for (size_t j = 0; j < n; ++j) uh(i, j) += double{u(i, k)} * h(k, j);
      }
    }
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        if (j < i) {
          ASSERT_EQ(u(i, j), 0.0f);
        }
        double sum = 0;
        for (size_t k = j; k < n; ++k) sum += uh(i, k) * u(j, k);
        ASSERT_NEAR(sum, i == j ? 1.0 : 0.0, 1e-4) << i << ", " << j;
      }
    }
  }
}

// Of more columns than are factored at once: by halves of halves, the last block short.
TEST_P(LinalgOn, FactorOfTheInverseOfManyColumns) {
  if (!device().is_cuda()) GTEST_SKIP() << "what the others are held against";
  constexpr size_t kN = 2600, kSources = 64;
  const Matrix<float> x = Random(kN, kSources, 7);
  Matrix<float> h(kN, kN);
  for (size_t i = 0; i < kN; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (size_t k = 0; k < kSources; ++k) sum += double{x(i, k)} * x(j, k);
      h(i, j) = h(j, i) = static_cast<float>(sum / kSources + (i == j ? 0.03 : 0));
    }
  }
  Matrix<float> expected = h.Clone();
  ASSERT_TRUE(CholeskyOfInverseUpper(expected));
  std::vector<Matrix<float>> found;
  for (int i = 0; i < 2; ++i) {
    Framed a(device(), h, 0, 3);
    ASSERT_TRUE(CholeskyOfInverseUpper(a.view()));
    EXPECT_TRUE(a.FrameIsWhole());
    found.push_back(OnHost(a.view()));
  }
  EXPECT_TRUE(SameBytes(found[0], found[1]));
  for (size_t i = 0; i < kN; ++i) {
    for (size_t j = 0; j < kN; ++j)
      ASSERT_NEAR(found[0](i, j), expected(i, j), 3e-4 * expected(i, i)) << i << ", " << j;
  }
  for (const size_t bad : {size_t{5}, size_t{1500}, kN - 1}) {  // not positive definite
    Matrix<float> other = h.Clone();
    other(bad, bad) = 0;
    EXPECT_FALSE(CholeskyOfInverseUpper(CopyTo(device(), other).view())) << bad;
  }
}

// What a large triangle is joined from: parts that are multiplied as far as they are not zero. FP64 would
// take long, so L L^-1 is tried on vectors.
TEST_P(LinalgOn, InverseOfALargeTriangle) {
  if (!device().is_cuda()) GTEST_SKIP() << "the processor takes tiles of one size";
  constexpr size_t kN = 2600;
  Matrix<float> l(kN, kN, 0.0f);
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < kN; ++i) {
    for (size_t j = 0; j < i; ++j) l(i, j) = 0.02f * normal(random);
    l(i, i) = 1 + 0.1f * std::fabs(normal(random));
  }
  Array there = CopyTo(device(), l);
  InvertLowerTriangle(there.view());
  const Matrix<float> inverse = OnHost(there.view());
  for (size_t column : {size_t{0}, size_t{1000}, size_t{1024}, size_t{2047}, size_t{2048}, kN - 1}) {
    for (size_t i = 0; i < kN; ++i) {
      double sum = 0, size = 0;
      for (size_t k = 0; k <= i; ++k) {
        sum += double{l(i, k)} * inverse(k, column);
        size += std::fabs(double{l(i, k)} * inverse(k, column));
      }
      ASSERT_NEAR(sum, i == column ? 1.0 : 0.0, 1e-5 * (1 + size)) << i << ", " << column;
      if (i < column) {
        ASSERT_EQ(inverse(i, column), 0.0f);
      }
    }
  }
}

TEST_P(LinalgOn, RefusesWhatIsNotPositiveDefinite) {
  for (const size_t n : {2, 300}) {
    for (const float bad : {-1.0f, 0.0f, kNan, std::numeric_limits<float>::infinity()}) {
      for (const size_t where : {size_t{0}, n / 2, n - 1}) {
        Matrix<float> a(n, n, 0.0f);
        for (size_t i = 0; i < n; ++i) a(i, i) = 1;
        a(where, where) = bad;
        EXPECT_FALSE(CholeskyLower(CopyTo(device(), a).view())) << n << ' ' << bad;
        EXPECT_FALSE(CholeskyOfInverseUpper(CopyTo(device(), a).view())) << n << ' ' << bad;
      }
    }
  }
  Matrix<float> a(300, 300, 0.0f);
  for (size_t i = 0; i < 300; ++i) a(i, i) = 1;
  a(280, 3) = a(3, 280) = kNan;
  EXPECT_FALSE(CholeskyLower(CopyTo(device(), a).view()));
}

TEST_P(LinalgOn, ProductsWithATriangleReadNothingBelowIt) {
  for (const size_t n : {1, 7, 130, 300, 2100}) {  // in two panels
    const size_t rows = n > 1000 ? 5 : n;
    const Matrix<float> x = Random(rows, n, 7);
    Matrix<float> u = Random(n, n, 8);
    for (size_t i = 0; i < n; ++i) std::fill_n(u.row(i), i, kNan);
    Framed of_u(device(), u, 1, 0);
    for (const bool transpose : {false, true}) {
      Framed of_x(device(), x, 2, 1);
      MultiplyByUpper(transpose, of_u.view(), 64, of_x.view());
      EXPECT_TRUE(of_x.FrameIsWhole());
      const Matrix<float> product = OnHost(of_x.view());
      for (size_t i = 0; i < rows; ++i) {
        for (size_t j = 0; j < n; ++j) {
          double sum = 0, size = 0;
          for (size_t k = transpose ? j : 0; k < (transpose ? n : j + 1); ++k) {
            const double term = double{x(i, k)} * (transpose ? u(j, k) : u(k, j));
            sum += term;
            size += std::fabs(term);
          }
          ASSERT_NEAR(product(i, j), sum, 1e-5 * size + 1e-7) << n << ' ' << i << ' ' << j;
        }
      }
    }
  }
}

TEST_P(LinalgOn, SumsOfProductsBySlabs) {
  for (const auto& [m, k, n] : {std::tuple{1, 1, 1}, {7, 130, 300}, {130, 65, 33}, {70, 2500, 40}}) {
    const Matrix<float> a = Random(static_cast<size_t>(m), static_cast<size_t>(k), 1),
                        b = Random(static_cast<size_t>(k), static_cast<size_t>(n), 2),
                        c = Random(static_cast<size_t>(m), static_cast<size_t>(n), 3);
    Framed of_a(device(), a, 1, 2), of_b(device(), b, 3, 0), of_c(device(), c, 2, 1);
    AddProductBySlabs(of_a.view(), of_b.view(), 32, of_c.view());
    EXPECT_TRUE(of_c.FrameIsWhole());
    const Matrix<float> sum = OnHost(of_c.view());
    for (size_t i = 0; i < a.rows(); ++i) {
      for (size_t j = 0; j < b.cols(); ++j) {
        double expected = c(i, j), size = std::fabs(expected);
        for (size_t l = 0; l < a.cols(); ++l) {
          expected += double{a(i, l)} * b(l, j);
          size += std::fabs(double{a(i, l)} * b(l, j));
        }
        ASSERT_NEAR(sum(i, j), expected, 1e-5 * size + 1e-7) << i << ' ' << j;
      }
    }
  }
}

// As ranks have them.
TEST_P(LinalgOn, ASlabHasTheSameBitsWhateverIsBesideIt) {
  const size_t rows = 230, n = 2300, slab = 64;
  const Array x = CopyTo(device(), Random(rows, n, 7)), u = CopyTo(device(), Random(n, n, 8));
  const auto product = [&](size_t first, size_t count) {
    Array sum(count, n, DType::kF32, device());
    Copy(x.view().Rows(first, count), sum.view());
    AddProductBySlabs(x.view().Rows(first, count), u.view(), slab, sum.view());
    for (const bool transpose : {true, false}) MultiplyByUpper(transpose, u.view(), slab, sum.view());
    return OnHost(sum.view());
  };
  const Matrix<float> all = product(0, rows);
  for (const auto& [first, count] : {std::pair<size_t, size_t>{0, 64}, {64, 128}, {192, 38}, {64, 166}}) {
    const Matrix<float> some = product(first, count);
    EXPECT_EQ(std::memcmp(some.data(), all.row(first), some.size() * sizeof(float)), 0)
        << first << ' ' << count;
  }
}

TEST_P(LinalgOn, Arrangements) {
  for (const size_t n : {1, 7, 130, 300}) {
    SCOPED_TRACE(n);
    const Matrix<float> h = Random(n, n, 9);
    std::vector<uint32_t> order(n);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), std::mt19937(10));
    std::vector<float> scale(n);
    for (size_t p = 0; p < n; ++p)
      scale[p] = p % 5 == 2 ? 0.0f : std::ldexp(1.0f, static_cast<int>(p % 9) - 4);
    Framed of_h(device(), h, 1, 1), out(device(), n, n, DType::kF32, 0, 2);
    ArrangeSymmetric(of_h.view(), order, scale, 0.01, 3.0f, out.view());
    EXPECT_TRUE(out.FrameIsWhole());
    const Matrix<float> arranged = OnHost(out.view());
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        float expected = h(order[i], order[j]) * scale[i] * scale[j];
        if (i == j) expected = static_cast<float>(expected * 1.01);
        if (scale[i] == 0 || scale[j] == 0) expected = i == j ? 3.0f : 0.0f;
        ASSERT_EQ(arranged(i, j), expected);
      }
    }
    const std::vector<float> diagonal = DiagonalOf(of_h.view());
    for (size_t i = 0; i < n; ++i) ASSERT_EQ(diagonal[i], h(i, i));

    GatherColumns(of_h.view(), order, out.view());
    const Matrix<float> gathered = OnHost(out.view());
    Reverse(out.view());
    const Matrix<float> reversed = OnHost(out.view());
    ScaleValues(0.5f, of_h.view(), out.view());
    ScaleAndAdd(of_h.view(), 4.0f, out.view());
    const Matrix<float> tripled = OnHost(out.view());
    Copy(of_h.view(), out.view());
    ScaleUpperColumns(scale, out.view());
    const Matrix<float> scaled = OnHost(out.view());
    EXPECT_TRUE(out.FrameIsWhole());
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j < n; ++j) {
        ASSERT_EQ(gathered(i, j), h(i, order[j]));
        ASSERT_EQ(reversed(i, j), gathered(n - 1 - i, n - 1 - j));
        ASSERT_FLOAT_EQ(tripled(i, j), 3 * h(i, j));
        ASSERT_EQ(scaled(i, j), j >= i ? h(i, j) * scale[j] : h(i, j));
      }
    }

    Matrix<float> upper = h.Clone();
    for (size_t i = 0; i < n; ++i) std::fill_n(upper.row(i), i, 0.0f);
    Framed of_upper(device(), upper, 2, 0);
    const std::vector<double> squares = UpperColumnSquares(of_upper.view());
    for (size_t j = 0; j < n; ++j) {
      double sum = 0;
      for (size_t i = 0; i <= j; ++i) sum += double{h(i, j)} * h(i, j);
      ASSERT_NEAR(squares[j], sum, 1e-12 * sum);
    }
  }
}

TEST_P(LinalgOn, ReversalOfMatricesOfEveryShape) {
  for (const auto& [rows, cols] : {std::pair<size_t, size_t>{1, 1}, {1, 8}, {2, 3}, {5, 4}, {301, 77}}) {
    const Matrix<float> a = Random(rows, cols, 11);
    Framed there(device(), a, 1, 1);
    Reverse(there.view());
    EXPECT_TRUE(there.FrameIsWhole());
    const Matrix<float> reversed = OnHost(there.view());
    for (size_t r = 0; r < rows; ++r) {
      for (size_t c = 0; c < cols; ++c) ASSERT_EQ(reversed(r, c), a(rows - 1 - r, cols - 1 - c));
    }
  }
}

TEST_P(LinalgOn, TransposesOfEveryType) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const auto& [rows, cols] : {std::pair<size_t, size_t>{1, 1}, {7, 130}, {300, 33}, {64, 64}}) {
      const Array a = RandomTensor(rows, cols, dtype, 12);
      Framed in(device(), a.view(), 1, 0), out(device(), cols, rows, dtype, 0, 3);
      Transpose(in.view(), out.view());
      EXPECT_TRUE(out.FrameIsWhole());
      const std::vector<float> before = Floats(a.view()),
                               after = Floats(CopyTo(Device::Cpu(), out.view()).view());
      for (size_t r = 0; r < rows; ++r) {
        for (size_t c = 0; c < cols; ++c) ASSERT_EQ(after[c * rows + r], before[r * cols + c]);
      }
    }
  }
}

TEST_P(LinalgOn, ValuesThatAreNotFiniteAreNamed) {
  Matrix<float> a = Random(300, 130, 13);
  CheckTensorFinite(Framed(device(), a, 1, 1).view(), "moments");
  CheckTensorFinite(Framed(device(), a, 1, 1).view().Rows(0, 0), "nothing");
  for (const float bad : {kNan, -std::numeric_limits<float>::infinity()}) {
    Matrix<float> other = a.Clone();
    other(200, 129) = other(200, 3) = bad;
    ExpectError([&] { CheckTensorFinite(Framed(device(), other, 1, 1).view(), "moments"); },
                {"moments: row 200, column 3 is"});
  }
}

}  // namespace
}  // namespace mica
