// Causal attention and its gradient: numbers worked by hand, the scalar reference and the blocked kernels
// against a softmax over whole rows in FP64 and its analytic gradient, with and without native BF16, and what
// must not change their results.
#include "ops/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <ostream>
#include <tuple>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "ops/tile/kernels.h"
#include "ops/tile/tile_product.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

const KernelTable& Ref() { return Kernels(Backend::kRef); }
const KernelTable& Cpu() { return Kernels(Backend::kCpu); }
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(Attention, RefByHand) {
  // One head of two channels, one window of two tokens; the second query's scores are ln 3 and 0: weights 3/4
  // and 1/4.
  const AttentionShape shape = {2, 2, 1, 1, 2};
  const float q[] = {1, 1, 1, 0}, k[] = {std::log(3.0f), 0, 0, 5}, v[] = {4, 8, 0, 16};
  Matrix<float> out(2, 2, kNan);
  float log_sums[] = {kNan, kNan};
  Ref().attention_f32(shape, q, k, v, 1.0f, out, log_sums);
  EXPECT_FLOAT_EQ(out(0, 0), 4);
  EXPECT_FLOAT_EQ(out(0, 1), 8);
  EXPECT_FLOAT_EQ(out(1, 0), 3);
  EXPECT_FLOAT_EQ(out(1, 1), 10);
  EXPECT_FLOAT_EQ(log_sums[0], std::log(3.0f));
  EXPECT_FLOAT_EQ(log_sums[1], std::log(4.0f));
}

// Native BF16 products as the processor has them, and the widening path.
class AttentionPaths : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    AllowNativeBf16(GetParam());
    if (GetParam() && !NativeBf16()) GTEST_SKIP() << "this processor has no native BF16 products";
  }
  void TearDown() override { AllowNativeBf16(true); }
};
INSTANTIATE_TEST_SUITE_P(Bf16, AttentionPaths, testing::Bool(),
                         [](const auto& info) { return info.param ? "native" : "widened"; });

struct AttentionCase {
  size_t windows, window, heads, kv_heads, head_dim;
};
// Windows on either side of the query block (128) and key block (512); MHA, GQA, MQA; heads that fill no
// vector.
constexpr AttentionCase kAttention[] = {{1, 1, 1, 1, 2},    {3, 7, 2, 1, 16},   {2, 127, 4, 2, 8},
                                        {1, 128, 3, 3, 20}, {2, 129, 2, 2, 64}, {1, 511, 2, 1, 32},
                                        {1, 513, 4, 4, 24}, {1, 650, 6, 2, 40}, {1, 1100, 2, 1, 128}};

TEST_P(AttentionPaths, MatchesTheScalarReference) {
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

TEST_P(AttentionPaths, GradientMatchesTheScalarReference) {
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

using Doubles = std::vector<double>;

// Inputs of one case; in BF16 the same numbers after rounding.
struct Inputs {
  Inputs(const AttentionShape& of, bool half) : shape(of) {
    const size_t q_size = shape.heads * shape.tokens * shape.head_dim,
                 kv_size = shape.kv_heads * shape.tokens * shape.head_dim;
    // Scores of standard deviation 2: the softmax has to rescale.
    q = RandomValues(q_size, 41, 2.0f);
    k = RandomValues(kv_size, 42);
    v = RandomValues(kv_size, 43);
    grad_out = RandomValues(q_size, 44);
    factor = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    if (!half) return;
    for (std::vector<float>* values : {&q, &k, &v, &grad_out}) *values = Widened(Rounded(*values));
  }
  AttentionShape shape;
  std::vector<float> q, k, v, grad_out;
  float factor;
};

// What attention means, one row of probabilities at a time, all in FP64.
struct Exact {
  Doubles out;         // [tokens, heads * head_dim]
  Doubles log_sums;    // [heads, tokens]
  Doubles grad_means;  // [heads, tokens]
  Doubles grad_q, grad_k, grad_v;
};

Exact Attend(const Inputs& in) {
  const auto [tokens, window, heads, kv_heads, head_dim] = in.shape;
  Exact exact;
  exact.out.assign(tokens * heads * head_dim, 0.0);
  exact.log_sums.assign(heads * tokens, 0.0);
  exact.grad_means.assign(heads * tokens, 0.0);
  exact.grad_q.assign(in.q.size(), 0.0);
  exact.grad_k.assign(in.k.size(), 0.0);
  exact.grad_v.assign(in.v.size(), 0.0);
  const auto product = [d = head_dim](const float* a, const float* b) {
    double sum = 0;
    for (size_t i = 0; i < d; ++i) sum += double{a[i]} * b[i];
    return sum;
  };
  for (size_t head = 0; head < heads; ++head) {
    const size_t kv_head = head * kv_heads / heads;
    for (size_t t = 0; t < tokens; ++t) {
      const size_t row = head * tokens + t, begin = t - t % window, seen = t % window + 1;
      const size_t first_key = kv_head * tokens + begin;
      Doubles p(seen), grad_p(seen);
      for (size_t s = 0; s < seen; ++s) {
        p[s] = in.factor * product(&in.q[row * head_dim], &in.k[(first_key + s) * head_dim]);
        grad_p[s] = product(&in.grad_out[row * head_dim], &in.v[(first_key + s) * head_dim]);
      }
      const double largest = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (const double score : p) sum += std::exp(score - largest);
      exact.log_sums[row] = largest + std::log(sum);
      double& mean = exact.grad_means[row];
      for (size_t s = 0; s < seen; ++s) {
        p[s] = std::exp(p[s] - exact.log_sums[row]);
        mean += p[s] * grad_p[s];
      }
      for (size_t s = 0; s < seen; ++s) {
        const double grad_score = in.factor * p[s] * (grad_p[s] - mean);
        for (size_t i = 0; i < head_dim; ++i) {
          const size_t query = row * head_dim + i, key = (first_key + s) * head_dim + i;
          exact.out[(t * heads + head) * head_dim + i] += p[s] * in.v[key];
          exact.grad_q[query] += grad_score * in.k[key];
          exact.grad_k[key] += grad_score * in.q[query];
          exact.grad_v[key] += p[s] * in.grad_out[query];
        }
      }
    }
  }
  return exact;
}

// Largest |a - b| / (1 + |b|), infinity where a is NaN.
double Worst(const std::vector<float>& a, const Doubles& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double error = std::fabs(a[i] - b[i]) / (1 + std::fabs(b[i]));
    if (!(error <= worst)) worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
  }
  return worst;
}
// Root of the mean squared difference over that of b's values.
double Relative(const std::vector<float>& a, const Doubles& b) {
  double errors = 0, squares = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    errors += (a[i] - b[i]) * (a[i] - b[i]);
    squares += b[i] * b[i];
  }
  return std::sqrt(errors / squares);
}

std::vector<float> Narrowed(const Doubles& values) { return {values.begin(), values.end()}; }

// The forward kernel of a table into poisoned rows that lie 3 values apart; those must stay as they were.
struct Output {
  std::vector<float> out, log_sums;
};
Output Forward(const KernelTable& table, const Inputs& in, bool half, bool with_log_sums = true) {
  const size_t tokens = in.shape.tokens, width = in.shape.heads * in.shape.head_dim, stride = width + 3;
  Output result;
  result.log_sums = NanFloats(in.shape.heads * tokens);
  float* const log_sums = with_log_sums ? result.log_sums.data() : nullptr;
  std::vector<float> rows = NanFloats(tokens * stride);
  if (half) {
    std::vector<BF16> half_rows = NanHalves(tokens * stride);
    const MatrixView<BF16> view(half_rows.data(), tokens, width, stride);
    table.attention_bf16(in.shape, Rounded(in.q).data(), Rounded(in.k).data(), Rounded(in.v).data(),
                         in.factor, view, log_sums);
    rows = Widened(half_rows);
  } else {
    const MatrixView<float> view(rows.data(), tokens, width, stride);
    table.attention_f32(in.shape, in.q.data(), in.k.data(), in.v.data(), in.factor, view, log_sums);
  }
  for (size_t t = 0; t < tokens; ++t) {
    result.out.insert(result.out.end(), rows.begin() + static_cast<ptrdiff_t>(t * stride),
                      rows.begin() + static_cast<ptrdiff_t>(t * stride + width));
    for (size_t i = width; i < stride; ++i) EXPECT_TRUE(std::isnan(rows[t * stride + i]));
  }
  return result;
}

// The gradient kernel of a table, given the exact sums and means.
struct Gradients {
  std::vector<float> q, k, v;
};
Gradients Backward(const KernelTable& table, const Inputs& in, const Exact& exact, bool half) {
  Gradients result = {NanFloats(in.q.size()), NanFloats(in.k.size()), NanFloats(in.v.size())};
  const AttentionGradients out = {result.q.data(), result.k.data(), result.v.data()};
  const std::vector<float> log_sums = Narrowed(exact.log_sums), means = Narrowed(exact.grad_means);
  if (half) {
    const auto q = Rounded(in.q), k = Rounded(in.k), v = Rounded(in.v), grad_out = Rounded(in.grad_out);
    table.attention_gradient_bf16(
        in.shape, {q.data(), k.data(), v.data(), grad_out.data(), log_sums.data(), means.data(), in.factor},
        out);
  } else {
    table.attention_gradient_f32(
        in.shape,
        {in.q.data(), in.k.data(), in.v.data(), in.grad_out.data(), log_sums.data(), means.data(), in.factor},
        out);
  }
  return result;
}

// Windows on either side of the blocks of queries (128) and keys (512) and of two blocks of keys; MHA, GQA,
// MQA; every head dimension on either side of a vector.
constexpr AttentionCase kExact[] = {
    {1, 1, 1, 1, 2},    {5, 2, 2, 1, 6},   {3, 31, 4, 2, 6},   {2, 127, 4, 2, 2},   {2, 128, 3, 1, 64},
    {2, 129, 2, 2, 80}, {1, 255, 4, 4, 6}, {1, 257, 2, 1, 64}, {1, 511, 2, 2, 128}, {1, 512, 4, 2, 6},
    {1, 513, 2, 1, 80}, {2, 640, 3, 1, 2}, {1, 641, 4, 2, 64}, {1, 1023, 2, 1, 6},  {1, 1025, 2, 1, 128}};

// One precision of one table; the cpu table's BF16 products as the processor has them or widened.
struct Kernel {
  const char* name;
  Backend backend;
  bool half, native;
};
void PrintTo(const Kernel& kernel, std::ostream* out) { *out << kernel.name; }

class ExactAttention : public testing::TestWithParam<Kernel> {
 protected:
  void SetUp() override {
    AllowNativeBf16(GetParam().native);
    if (GetParam().native && !NativeBf16()) GTEST_SKIP() << "this processor has no native BF16 products";
  }
  void TearDown() override { AllowNativeBf16(true); }

  // Calls check(inputs, exact results) for every case.
  template <typename Check>
  void ForCases(const Check& check) const {
    for (const auto& c : kExact) {
      SCOPED_TRACE(testing::Message() << c.windows << " windows of " << c.window << ", " << c.heads << " on "
                                      << c.kv_heads << " heads of " << c.head_dim);
      const AttentionShape shape = {c.windows * c.window, c.window, c.heads, c.kv_heads, c.head_dim};
      const Inputs in(shape, GetParam().half);
      // The slowest part; once for all kernels.
      static std::map<std::pair<const AttentionCase*, bool>, Exact> kept;
      const auto [place, fresh] = kept.try_emplace({&c, GetParam().half});
      if (fresh) place->second = Attend(in);
      check(in, place->second);
    }
  }
  const KernelTable& table() const { return Kernels(GetParam().backend); }
};
INSTANTIATE_TEST_SUITE_P(Kernels, ExactAttention,
                         testing::Values(Kernel{"ref_fp32", Backend::kRef, false, false},
                                         Kernel{"ref_bf16", Backend::kRef, true, false},
                                         Kernel{"cpu_fp32", Backend::kCpu, false, false},
                                         Kernel{"cpu_bf16_widened", Backend::kCpu, true, false},
                                         Kernel{"cpu_bf16_native", Backend::kCpu, true, true}),
                         [](const auto& info) { return info.param.name; });

TEST_P(ExactAttention, IsSoftmaxOverWholeRowsInFp64) {
  const bool ref = GetParam().backend == Backend::kRef;
  ForCases([&](const Inputs& in, const Exact& exact) {
    const Output output = Forward(table(), in, GetParam().half);
    EXPECT_LE(Worst(output.log_sums, exact.log_sums), ref ? 1e-6 : 3e-6);
    if (GetParam().half) {
      // Rounding of a result is at most 1/256 of it; the blocked kernel rounds probabilities as well.
      EXPECT_LE(Worst(output.out, exact.out), ref ? 1.0 / 256 : 2.0 / 256);
      EXPECT_LE(Relative(output.out, exact.out), ref ? 0.5 / 256 : 0.75 / 256);
    } else {
      EXPECT_LE(Worst(output.out, exact.out), ref ? 1e-6 : 5e-6);
    }
  });
}

TEST_P(ExactAttention, GradientIsTheAnalyticOneInFp64) {
  const bool ref = GetParam().backend == Backend::kRef;
  ForCases([&](const Inputs& in, const Exact& exact) {
    const Gradients gradients = Backward(table(), in, exact, GetParam().half);
    for (const auto& [name, actual, expected] :
         {std::tuple{"q", &gradients.q, &exact.grad_q}, std::tuple{"k", &gradients.k, &exact.grad_k},
          std::tuple{"v", &gradients.v, &exact.grad_v}}) {
      // The reference's results are FP32 in both precisions.
      EXPECT_LE(Worst(*actual, *expected), ref ? 2e-6 : GetParam().half ? 0.02 : 1e-5) << name;
      // A window of one token passes no gradient to q and k.
      if (in.shape.window == 1) continue;
      EXPECT_LE(Relative(*actual, *expected), ref ? 2e-6 : GetParam().half ? 4e-3 : 5e-6) << name;
    }
  });
}

TEST(Attention, AnalyticGradientIsTheDerivativeOfTheExactOutput) {
  // Central differences in the double-precision definition hold the oracle itself.
  Inputs in({10, 5, 4, 2, 6}, false);
  const Exact exact = Attend(in);
  const float step = 0x1p-10f;  // inputs are FP32: steps are exact to 2^-13 of themselves
  const auto moved = [&](float& value, float by) {
    const float before = value;
    value += by;
    const double sum = [&] {
      const Exact at = Attend(in);
      double total = 0;
      for (size_t t = 0; t < 10; ++t) {
        for (size_t head = 0; head < 4; ++head) {
          for (size_t i = 0; i < 6; ++i)
            total += at.out[(t * 4 + head) * 6 + i] * in.grad_out[(head * 10 + t) * 6 + i];
        }
      }
      return total;
    }();
    const double actual = double{value} - before;
    value = before;
    return std::pair(sum, actual);
  };
  for (const auto& [values, gradient] :
       {std::pair{&in.q, &exact.grad_q}, {&in.k, &exact.grad_k}, {&in.v, &exact.grad_v}}) {
    for (size_t i = 0; i < values->size(); ++i) {
      const auto [above, up] = moved((*values)[i], step);
      const auto [below, down] = moved((*values)[i], -step);
      EXPECT_NEAR((above - below) / (up - down), (*gradient)[i], 1e-5) << i;
    }
  }
}

TEST_P(AttentionPaths, WithoutLogSumsTheOutputIsTheSame) {
  for (const bool half : {false, true}) {
    const Inputs in({260, 130, 4, 2, 6}, half);
    for (const KernelTable* table : {&Ref(), &Cpu()}) {
      const Output with = Forward(*table, in, half), without = Forward(*table, in, half, false);
      EXPECT_EQ(with.out, without.out);
      EXPECT_TRUE(std::isnan(without.log_sums[0]));
      EXPECT_FALSE(std::isnan(with.log_sums[0]));
    }
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
