// Matrix products against the scalar reference, with and without native BF16, and their independence of the
// number of threads and of the tokens beside.
#include "ops/product/product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "base/threads.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tile_product.h"
#include "tests/ops/random_values.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

const KernelTable& Ref() { return Kernels(Backend::kRef); }
const KernelTable& Cpu() { return Kernels(Backend::kCpu); }

// Sums of k products of unit normals: FP32 rounding grows with sqrt(k).
double Tolerance(size_t k) { return 4e-6 * std::sqrt(static_cast<double>(k)); }

std::vector<float> Transposed(const std::vector<float>& a, size_t rows, size_t cols) {
  std::vector<float> out(a.size());
  for (size_t r = 0; r < rows; ++r) {
    for (size_t c = 0; c < cols; ++c) out[c * rows + r] = a[r * cols + c];
  }
  return out;
}

// Native BF16 products as the processor has them, and the widening path.
class BothPaths : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    AllowNativeBf16(GetParam());
    if (GetParam() && !NativeBf16()) GTEST_SKIP() << "this processor has no native BF16 products";
  }
  void TearDown() override { AllowNativeBf16(true); }
};
INSTANTIATE_TEST_SUITE_P(Bf16, BothPaths, testing::Bool(),
                         [](const auto& info) { return info.param ? "native" : "widened"; });

struct Shape {
  size_t m, n, k;
};
constexpr Shape kShapes[] = {{1, 1, 1},   {1, 64, 33},  {2, 3, 5},      {7, 16, 64},    {16, 17, 48},
                             {33, 1, 80}, {64, 65, 77}, {128, 128, 96}, {129, 31, 128}, {100, 77, 130}};

TEST_P(BothPaths, TileProducts) {
  for (const auto [m, n, k] : kShapes) {
    const std::vector<float> a = RandomValues(m * k, 1), b = RandomValues(n * k, 2),
                             c = RandomValues(m * n, 3);
    for (const bool transposed : {false, true}) {
      for (const bool accumulate : {false, true}) {
        std::vector<float> expected = accumulate ? c : NanFloats(m * n), actual = expected;
        Ref().f32.product(a.data(), b.data(), transposed, m, n, k, accumulate, expected.data());
        Cpu().f32.product(a.data(), b.data(), transposed, m, n, k, accumulate, actual.data());
        EXPECT_LE(WorstError(actual, expected), Tolerance(k)) << m << " " << n << " " << k;
        expected = actual = accumulate ? c : NanFloats(m * n);
        Ref().bf16.product(Rounded(a).data(), Rounded(b).data(), transposed, m, n, k, accumulate,
                           expected.data());
        Cpu().bf16.product(Rounded(a).data(), Rounded(b).data(), transposed, m, n, k, accumulate,
                           actual.data());
        EXPECT_LE(WorstError(actual, expected), Tolerance(k)) << m << " " << n << " " << k;
      }
    }
    std::vector<float> expected = NanFloats(m * n), actual = expected;
    const std::vector<float> a_transposed = Transposed(a, m, k);
    Ref().f32.product(a.data(), b.data(), false, m, n, k, false, expected.data());
    TileProductTransposedA(a_transposed.data(), b.data(), m, n, k, false, actual.data());
    EXPECT_LE(WorstError(actual, expected), Tolerance(k));
    expected = actual = c;
    Ref().bf16.product(Rounded(a).data(), Rounded(b).data(), false, m, n, k, true, expected.data());
    TileProductTransposedA(Rounded(a_transposed).data(), Rounded(b).data(), m, n, k, true, actual.data());
    EXPECT_LE(WorstError(actual, expected), Tolerance(k));
  }
}

TEST_P(BothPaths, PreparedWeightsMatchTheReference) {
  for (const auto [tokens, outputs, inputs] :
       {Shape{1, 1, 1}, Shape{5, 130, 77}, Shape{127, 64, 96}, Shape{128, 513, 64}, Shape{129, 1024, 33},
        Shape{300, 100, 130}}) {
    const std::vector<float> x = RandomValues(tokens * inputs, 4), w = RandomValues(outputs * inputs, 5),
                             bias = RandomValues(outputs, 6);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const PreparedWeights prepared(MatrixView<const float>(w.data(), outputs, inputs), dtype);
      EXPECT_EQ(prepared.outputs(), outputs);
      EXPECT_EQ(prepared.inputs(), inputs);
      EXPECT_EQ(prepared.operands(), dtype);
      EXPECT_GE(prepared.bytes(), outputs * inputs * 2);
      EXPECT_GE(prepared.bytes(), outputs * inputs * PreparedWeights::ValueBytes(dtype));
      std::vector<float> expected(tokens * outputs);
      std::vector<float> actual = NanFloats(tokens * outputs);
      const Array operand = FromFloats(x, tokens, inputs, dtype);
      const MatrixView<float> y(actual.data(), tokens, outputs);
      DispatchOperand(dtype, [&](auto type) {
        using T = decltype(type);
        std::vector<T> rounded(w.size());
        Ref().of<T>().from_f32(w.data(), w.size(), rounded.data());
        Ref().of<T>().product(operand.view().host<T>().data, rounded.data(), true, tokens, outputs, inputs,
                              false, expected.data());
      });
      Multiply(operand.view(), prepared, {}, y);
      EXPECT_LE(WorstError(actual, expected), Tolerance(inputs));
      // y = x w + bias, then y += x w + bias.
      Multiply(operand.view(), prepared, bias, y);
      MultiplyAdd(operand.view(), prepared, bias, y);
      for (size_t i = 0; i < expected.size(); ++i) expected[i] = 2 * (expected[i] + bias[i % outputs]);
      EXPECT_LE(WorstError(actual, expected), 2 * Tolerance(inputs));
    }
  }
}

TEST_P(BothPaths, RowsWithGapsAreRead) {
  const std::vector<float> x = RandomValues(10 * 50, 7), w = RandomValues(20 * 50, 8);
  const MatrixView<const float> x_part(x.data() + 3, 10, 40, 50), w_part(w.data() + 3, 20, 40, 50);
  std::vector<float> x_dense, w_dense;
  for (size_t r = 0; r < 10; ++r) x_dense.insert(x_dense.end(), x_part.row(r), x_part.row(r) + 40);
  for (size_t r = 0; r < 20; ++r) w_dense.insert(w_dense.end(), w_part.row(r), w_part.row(r) + 40);
  std::vector<float> expected(200), actual = NanFloats(10 * 30);
  Ref().f32.product(x_dense.data(), w_dense.data(), true, 10, 20, 40, false, expected.data());
  Multiply(x_part, PreparedWeights(w_part, DType::kF32), {}, MatrixView<float>(actual.data(), 10, 20, 30));
  for (size_t t = 0; t < 10; ++t) {
    for (size_t o = 0; o < 20; ++o) EXPECT_NEAR(actual[t * 30 + o], expected[t * 20 + o], 1e-4);
    EXPECT_TRUE(std::isnan(actual[t * 30 + 20]));
  }
}

// A row's result must not change with the rows beside it, nor with the number of threads.
TEST_P(BothPaths, ResultsDependOnTheRowAlone) {
  const size_t inputs = 640, outputs = 700;
  const std::vector<float> x = RandomValues(300 * inputs, 9), w = RandomValues(outputs * inputs, 10);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const PreparedWeights prepared(MatrixView<const float>(w.data(), outputs, inputs), dtype);
    const Array operand = FromFloats(x, 300, inputs, dtype);
    const auto product = [&](size_t first, size_t tokens) {
      Matrix<float> y(tokens, outputs);
      Multiply(operand.view().Rows(first, tokens), prepared, {}, y);
      return y;
    };
    SetThreads(2);
    const Matrix<float> all = product(0, 300);
    for (const int threads : {1, 2, 3}) {
      SetThreads(threads);
      const Matrix<float> again = product(0, 300);
      EXPECT_EQ(std::memcmp(again.data(), all.data(), all.size() * sizeof(float)), 0)
          << threads << " threads";
    }
    SetThreads(0);
    for (const auto& [first, tokens] :
         {std::pair<size_t, size_t>{0, 2}, {3, 17}, {100, 200}, {250, 50}, {5, 128}}) {
      const Matrix<float> part = product(first, tokens);
      EXPECT_LE(WorstError(std::vector<float>(part.data(), part.data() + part.size()),
                           std::vector<float>(all.row(first), all.row(first) + part.size())),
                Tolerance(inputs))
          << tokens << " tokens";
    }
  }
}

}  // namespace
}  // namespace mica
