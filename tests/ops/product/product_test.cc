// Matrix products and attention of the cpu table against the scalar reference, with and without native BF16,
// and their independence of the number of threads and of the tokens beside.
#include "ops/product/product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "base/threads.h"
#include "device/precision.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tile_product.h"
#include "tests/ops/random_values.h"

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
        Ref().product_f32(a.data(), b.data(), transposed, m, n, k, accumulate, expected.data());
        Cpu().product_f32(a.data(), b.data(), transposed, m, n, k, accumulate, actual.data());
        EXPECT_LE(WorstError(actual, expected), Tolerance(k)) << m << " " << n << " " << k;
        expected = actual = accumulate ? c : NanFloats(m * n);
        Ref().product_bf16(Rounded(a).data(), Rounded(b).data(), transposed, m, n, k, accumulate,
                           expected.data());
        Cpu().product_bf16(Rounded(a).data(), Rounded(b).data(), transposed, m, n, k, accumulate,
                           actual.data());
        EXPECT_LE(WorstError(actual, expected), Tolerance(k)) << m << " " << n << " " << k;
      }
    }
    std::vector<float> expected = NanFloats(m * n), actual = expected;
    const std::vector<float> a_transposed = Transposed(a, m, k);
    Ref().product_f32(a.data(), b.data(), false, m, n, k, false, expected.data());
    TileProductTransposedA(a_transposed.data(), b.data(), m, n, k, false, actual.data());
    EXPECT_LE(WorstError(actual, expected), Tolerance(k));
    expected = actual = c;
    Ref().product_bf16(Rounded(a).data(), Rounded(b).data(), false, m, n, k, true, expected.data());
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
    for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
      const PreparedWeights prepared(MatrixView<const float>(w.data(), outputs, inputs), precision);
      EXPECT_EQ(prepared.outputs(), outputs);
      EXPECT_EQ(prepared.inputs(), inputs);
      EXPECT_GE(prepared.bytes(), outputs * inputs * 2);
      std::vector<float> expected(tokens * outputs);
      std::vector<float> actual = NanFloats(tokens * outputs);
      const std::vector<BF16> x16 = Rounded(x);
      const MatrixView<float> y(actual.data(), tokens, outputs);
      const auto multiply = [&](const float* bias_or_null, auto function) {
        if (precision == Precision::kFp32) {
          function(MatrixView<const float>(x.data(), tokens, inputs), prepared, bias_or_null, y);
        } else {
          function(MatrixView<const BF16>(x16.data(), tokens, inputs), prepared, bias_or_null, y);
        }
      };
      if (precision == Precision::kFp32) {
        Ref().product_f32(x.data(), w.data(), true, tokens, outputs, inputs, false, expected.data());
      } else {
        Ref().product_bf16(x16.data(), Rounded(w).data(), true, tokens, outputs, inputs, false,
                           expected.data());
      }
      multiply(nullptr, [](const auto&... args) { Multiply(args...); });
      EXPECT_LE(WorstError(actual, expected), Tolerance(inputs));
      // y = x w + bias, then y += x w + bias.
      multiply(bias.data(), [](const auto&... args) { Multiply(args...); });
      multiply(bias.data(), [](const auto&... args) { MultiplyAdd(args...); });
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
  Ref().product_f32(x_dense.data(), w_dense.data(), true, 10, 20, 40, false, expected.data());
  Multiply(x_part, PreparedWeights(w_part, Precision::kFp32), nullptr,
           MatrixView<float>(actual.data(), 10, 20, 30));
  for (size_t t = 0; t < 10; ++t) {
    for (size_t o = 0; o < 20; ++o) EXPECT_NEAR(actual[t * 30 + o], expected[t * 20 + o], 1e-4);
    EXPECT_TRUE(std::isnan(actual[t * 30 + 20]));
  }
}

// A row's result must not change with the rows beside it, nor with the number of threads.
TEST_P(BothPaths, ResultsDependOnTheRowAlone) {
  const size_t inputs = 640, outputs = 700;
  const std::vector<float> x = RandomValues(300 * inputs, 9), w = RandomValues(outputs * inputs, 10);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const PreparedWeights prepared(MatrixView<const float>(w.data(), outputs, inputs), precision);
    const std::vector<BF16> x16 = Rounded(x);
    const auto product = [&](size_t first, size_t tokens) {
      Matrix<float> y(tokens, outputs);
      if (precision == Precision::kFp32) {
        Multiply(MatrixView<const float>(x.data() + first * inputs, tokens, inputs), prepared, nullptr, y);
      } else {
        Multiply(MatrixView<const BF16>(x16.data() + first * inputs, tokens, inputs), prepared, nullptr, y);
      }
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

struct AttentionCase {
  size_t windows, window, heads, kv_heads, head_dim;
};
// Windows on either side of the query block (128) and key block (512); MHA, GQA, MQA; heads that fill no
// vector.
constexpr AttentionCase kAttention[] = {{1, 1, 1, 1, 2},    {3, 7, 2, 1, 16},   {2, 127, 4, 2, 8},
                                        {1, 128, 3, 3, 20}, {2, 129, 2, 2, 64}, {1, 511, 2, 1, 32},
                                        {1, 513, 4, 4, 24}, {1, 650, 6, 2, 40}, {1, 1100, 2, 1, 128}};

TEST_P(BothPaths, AttentionMatchesTheReference) {
  for (const auto& c : kAttention) {
    const AttentionShape shape = {c.windows * c.window, c.window, c.heads, c.kv_heads, c.head_dim};
    const size_t q_size = c.heads * shape.tokens * c.head_dim,
                 kv_size = c.kv_heads * shape.tokens * c.head_dim;
    // Scores of standard deviation 3: the softmax has to rescale.
    const std::vector<float> q = RandomValues(q_size, 11, 3.0f), k = RandomValues(kv_size, 12),
                             v = RandomValues(kv_size, 13);
    const float factor = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    const size_t width = c.heads * c.head_dim;
    std::vector<float> expected = NanFloats(shape.tokens * width), actual = expected;
    std::vector<float> expected_sums = NanFloats(c.heads * shape.tokens), actual_sums = expected_sums;
    Ref().attention_f32(shape, q.data(), k.data(), v.data(), factor, {expected.data(), shape.tokens, width},
                        expected_sums.data());
    Cpu().attention_f32(shape, q.data(), k.data(), v.data(), factor, {actual.data(), shape.tokens, width},
                        actual_sums.data());
    EXPECT_LE(WorstError(actual, expected), 1e-5) << c.window << " x " << c.head_dim;
    EXPECT_LE(WorstError(actual_sums, expected_sums), 1e-5);

    std::vector<BF16> expected_half = NanHalves(shape.tokens * width), actual_half = expected_half;
    const auto q16 = Rounded(q), k16 = Rounded(k), v16 = Rounded(v);
    Ref().attention_bf16(shape, q16.data(), k16.data(), v16.data(), factor,
                         {expected_half.data(), shape.tokens, width}, nullptr);
    Cpu().attention_bf16(shape, q16.data(), k16.data(), v16.data(), factor,
                         {actual_half.data(), shape.tokens, width}, nullptr);
    EXPECT_LE(WorstError(Widened(actual_half), Widened(expected_half)), 0.015)
        << c.window << " x " << c.head_dim;
  }
}

TEST_P(BothPaths, AttentionGradientMatchesTheReference) {
  for (const auto& c : kAttention) {
    const AttentionShape shape = {c.windows * c.window, c.window, c.heads, c.kv_heads, c.head_dim};
    const size_t q_size = c.heads * shape.tokens * c.head_dim,
                 kv_size = c.kv_heads * shape.tokens * c.head_dim;
    const std::vector<float> q = RandomValues(q_size, 31, 2.0f), k = RandomValues(kv_size, 32),
                             v = RandomValues(kv_size, 33);
    const std::vector<float> grad = RandomValues(q_size, 34),
                             means = RandomValues(c.heads * shape.tokens, 35, 0.1f);
    const float factor = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
    std::vector<float> log_sums(c.heads * shape.tokens);
    Matrix<float> unused(shape.tokens, c.heads * c.head_dim);
    Ref().attention_f32(shape, q.data(), k.data(), v.data(), factor, unused, log_sums.data());
    const auto run = [&](const KernelTable& table, bool half) {
      std::vector<float> all = NanFloats(q_size + 2 * kv_size);
      const AttentionGradients out = {all.data(), all.data() + q_size, all.data() + q_size + kv_size};
      if (half) {
        const auto q16 = Rounded(q), k16 = Rounded(k), v16 = Rounded(v), grad16 = Rounded(grad);
        table.attention_gradient_bf16(
            shape, {q16.data(), k16.data(), v16.data(), grad16.data(), log_sums.data(), means.data(), factor},
            out);
      } else {
        table.attention_gradient_f32(
            shape, {q.data(), k.data(), v.data(), grad.data(), log_sums.data(), means.data(), factor}, out);
      }
      return all;
    };
    EXPECT_LE(WorstError(run(Cpu(), false), run(Ref(), false)), 2e-5) << c.window << " x " << c.head_dim;
    // Probabilities and score gradients are rounded to BF16 before they are summed.
    EXPECT_LE(WorstError(run(Cpu(), true), run(Ref(), true)), 0.02) << c.window << " x " << c.head_dim;
  }
}

TEST(Attention, SharedHeadsAreRepeatedHeads) {
  const AttentionShape shared = {140, 70, 6, 2, 12}, repeated = {140, 70, 6, 6, 12};
  const std::vector<float> q = RandomValues(6 * 140 * 12, 14), k = RandomValues(2 * 140 * 12, 15),
                           v = RandomValues(2 * 140 * 12, 16);
  std::vector<float> k6, v6;
  for (size_t head = 0; head < 6; ++head) {
    const size_t start = head / 3 * 140 * 12;
    k6.insert(k6.end(), k.begin() + start, k.begin() + start + 140 * 12);
    v6.insert(v6.end(), v.begin() + start, v.begin() + start + 140 * 12);
  }
  Matrix<float> a(140, 72), b(140, 72);
  Cpu().attention_f32(shared, q.data(), k.data(), v.data(), 0.3f, a, nullptr);
  Cpu().attention_f32(repeated, q.data(), k6.data(), v6.data(), 0.3f, b, nullptr);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0);
}

TEST(Attention, ThreadsDoNotChangeBits) {
  const AttentionShape shape = {600, 600, 3, 1, 32};
  const auto q = Rounded(RandomValues(3 * 600 * 32, 17)), k = Rounded(RandomValues(600 * 32, 18)),
             v = Rounded(RandomValues(600 * 32, 19));
  Matrix<BF16> one(600, 96), two(600, 96);
  SetThreads(1);
  Cpu().attention_bf16(shape, q.data(), k.data(), v.data(), 0.2f, one, nullptr);
  SetThreads(2);
  Cpu().attention_bf16(shape, q.data(), k.data(), v.data(), 0.2f, two, nullptr);
  SetThreads(0);
  EXPECT_EQ(std::memcmp(one.data(), two.data(), one.size() * sizeof(BF16)), 0);
}

}  // namespace
}  // namespace mica
