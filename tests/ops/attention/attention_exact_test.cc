// Attention and its gradient against a softmax over whole rows in FP64 and its analytic gradient: the scalar
// reference and the blocked op, in FP32 and in BF16 with native and with widened products.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <ostream>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/attention/attention.h"
#include "ops/tile/tile_product.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

using Floating = std::vector<float>;
using Doubles = std::vector<double>;

Floating Narrowed(const Doubles& values) { return {values.begin(), values.end()}; }

// Inputs of one case as the type holds them.
struct Inputs {
  Inputs(const AttentionShape& of, DType type) : shape(of), dtype(type) {
    // Scores of standard deviation 2: the softmax has to rescale.
    q = Floats(RandomTensor(shape.heads * shape.tokens, shape.head_dim, dtype, 41, 2.0f).view());
    k = Floats(RandomTensor(shape.kv_heads * shape.tokens, shape.head_dim, dtype, 42).view());
    v = Floats(RandomTensor(shape.kv_heads * shape.tokens, shape.head_dim, dtype, 43).view());
    grad_out = Floats(RandomTensor(shape.tokens, width(), dtype, 44).view());
    factor = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  }
  size_t width() const { return shape.heads * shape.head_dim; }
  AttentionShape shape;
  DType dtype;
  Floating q, k, v;   // head by head
  Floating grad_out;  // [tokens, width]
  float factor;
};

struct ExactGradient {
  explicit ExactGradient(const Inputs& in) : q(in.q.size(), 0.0), k(in.k.size(), 0.0), v(in.v.size(), 0.0) {}
  Doubles q, k, v;
};

// What attention means, one row of probabilities at a time, all in FP64.
struct Exact {
  Doubles out;             // [tokens, width]
  Doubles log_sums;        // [heads, tokens]
  ExactGradient gradient;  // of sum(grad_out * out)
  // What the same formulas give with sum(grad_out * out) over a row's channels taken from `out` rounded to
  // the type, which is all that a forward pass leaves.
  ExactGradient of_rounded;
};

Exact Attend(const Inputs& in) {
  const auto [tokens, window, heads, kv_heads, head_dim] = in.shape;
  Exact exact = {Doubles(tokens * in.width()), Doubles(heads * tokens), ExactGradient(in), ExactGradient(in)};
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
      const float* grad_out = &in.grad_out[t * in.width() + head * head_dim];
      double* out = &exact.out[t * in.width() + head * head_dim];
      Doubles p(seen), grad_p(seen);
      for (size_t s = 0; s < seen; ++s) {
        p[s] = in.factor * product(&in.q[row * head_dim], &in.k[(first_key + s) * head_dim]);
        grad_p[s] = product(grad_out, &in.v[(first_key + s) * head_dim]);
      }
      const double largest = *std::max_element(p.begin(), p.end());
      double sum = 0;
      for (const double score : p) sum += std::exp(score - largest);
      exact.log_sums[row] = largest + std::log(sum);
      double mean = 0;
      for (size_t s = 0; s < seen; ++s) {
        p[s] = std::exp(p[s] - exact.log_sums[row]);
        mean += p[s] * grad_p[s];
        const float* value = &in.v[(first_key + s) * head_dim];
        for (size_t i = 0; i < head_dim; ++i) out[i] += p[s] * value[i];
      }
      const Floating stored =
          Floats(FromFloats(Narrowed({out, out + head_dim}), 1, head_dim, in.dtype).view());
      for (const auto& [gradient, subtracted] :
           {std::pair{&exact.gradient, mean}, {&exact.of_rounded, product(grad_out, stored.data())}}) {
        for (size_t s = 0; s < seen; ++s) {
          const double grad_score = in.factor * p[s] * (grad_p[s] - subtracted);
          for (size_t i = 0; i < head_dim; ++i) {
            const size_t query = row * head_dim + i, key = (first_key + s) * head_dim + i;
            gradient->q[query] += grad_score * in.k[key];
            gradient->k[key] += grad_score * in.q[query];
            gradient->v[key] += p[s] * grad_out[i];
          }
        }
      }
    }
  }
  return exact;
}

// Largest |a - b| / (1 + |b|), infinity where a is NaN.
double Worst(const Floating& a, const Doubles& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double error = std::fabs(a[i] - b[i]) / (1 + std::fabs(b[i]));
    if (!(error <= worst)) worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
  }
  return worst;
}
// Root of the mean squared difference over that of b's values.
double Relative(const Floating& a, const Doubles& b) {
  double errors = 0, squares = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    errors += (a[i] - b[i]) * (a[i] - b[i]);
    squares += b[i] * b[i];
  }
  return std::sqrt(errors / squares);
}

// Poisoned rows that lie 3 values apart; those must stay as they were.
class Spaced {
 public:
  Spaced(size_t rows, size_t cols, DType dtype) : all_(Poisoned(rows, cols + 3, dtype)), cols_(cols) {}
  Tensor view() { return all_.view().Cols(0, cols_); }
  bool SpaceIsPoisoned() { return AllNan(all_.view().Cols(cols_, 3)); }
  void Fill(const Floating& values) {
    DispatchOperand(all_.dtype(), [&](auto type) {
      using T = decltype(type);
      const MatrixView<T> to = view().host<T>();
      for (size_t i = 0; i < values.size(); ++i) to(i / cols_, i % cols_) = Narrow<T>(values[i]);
    });
  }

 private:
  Array all_;
  size_t cols_;
};

// One type of one implementation; the BF16 products of the blocked op as the processor has them or widened.
struct Kernel {
  const char* name;
  bool ref;
  DType dtype;
  bool native;
};
void PrintTo(const Kernel& kernel, std::ostream* out) { *out << kernel.name; }

// The operands of one case as tensors.
struct Operands {
  explicit Operands(const Inputs& in)
      : q(FromFloats(in.q, in.shape.heads * in.shape.tokens, in.shape.head_dim, in.dtype)),
        k(FromFloats(in.k, in.shape.kv_heads * in.shape.tokens, in.shape.head_dim, in.dtype)),
        v(FromFloats(in.v, in.shape.kv_heads * in.shape.tokens, in.shape.head_dim, in.dtype)),
        inputs{q.view(), k.view(), v.view(), in.factor} {}
  Array q, k, v;
  AttentionInputs inputs;
};

struct Output {
  Floating out, log_sums;
};
Output Forward(const Kernel& kernel, const Inputs& in, bool with_log_sums = true) {
  const Operands operands(in);
  Spaced out(in.shape.tokens, in.width(), in.dtype);
  Array log_sums = Poisoned(in.shape.heads, in.shape.tokens, DType::kF32);
  (kernel.ref ? AttentionRef : Attention)(in.shape, operands.inputs, out.view(),
                                          with_log_sums ? log_sums.view() : Tensor());
  EXPECT_TRUE(out.SpaceIsPoisoned());
  return {Floats(out.view()), Floats(log_sums.view())};
}

// The gradients, given the exact result of the forward pass as the types hold it.
struct Gradients {
  Floating q, k, v;
};
Gradients Backward(const Kernel& kernel, const Inputs& in, const Exact& exact) {
  const Operands operands(in);
  Spaced out(in.shape.tokens, in.width(), in.dtype), grad_out(in.shape.tokens, in.width(), DType::kF32);
  out.Fill(Narrowed(exact.out));
  grad_out.Fill(in.grad_out);
  const Array log_sums =
      FromFloats(Narrowed(exact.log_sums), in.shape.heads, in.shape.tokens, DType::kF32);
  Array q = Poisoned(operands.q.rows(), in.shape.head_dim, DType::kF32),
              k = Poisoned(operands.k.rows(), in.shape.head_dim, DType::kF32),
              v = Poisoned(operands.v.rows(), in.shape.head_dim, DType::kF32);
  (kernel.ref ? AttentionGradientRef : AttentionGradient)(in.shape, operands.inputs,
                                                          {out.view(), log_sums.view(), grad_out.view()},
                                                          {q.view(), k.view(), v.view()});
  return {Floats(q.view()), Floats(k.view()), Floats(v.view())};
}

struct ExactCase {
  size_t windows, window, heads, kv_heads, head_dim;
};
// Windows on either side of the blocks of queries (128) and keys (512) and of two blocks of keys; MHA, GQA,
// MQA; every head dimension on either side of a vector.
constexpr ExactCase kCases[] = {
    {1, 1, 1, 1, 2},    {5, 2, 2, 1, 6},   {3, 31, 4, 2, 6},   {2, 127, 4, 2, 2},   {2, 128, 3, 1, 64},
    {2, 129, 2, 2, 80}, {1, 255, 4, 4, 6}, {1, 257, 2, 1, 64}, {1, 511, 2, 2, 128}, {1, 512, 4, 2, 6},
    {1, 513, 2, 1, 80}, {2, 640, 3, 1, 2}, {1, 641, 4, 2, 64}, {1, 1023, 2, 1, 6},  {1, 1025, 2, 1, 128}};

class ExactAttention : public testing::TestWithParam<Kernel> {
 protected:
  void SetUp() override {
    AllowNativeBf16(GetParam().native);
    if (GetParam().native && !NativeBf16()) GTEST_SKIP() << "this processor has no native BF16 products";
  }
  void TearDown() override { AllowNativeBf16(true); }

  bool ref() const { return GetParam().ref; }
  bool half() const { return GetParam().dtype == DType::kBF16; }
  // Calls check(inputs, exact results) for every case.
  template <typename Check>
  void ForCases(const Check& check) const {
    for (const ExactCase& c : kCases) {
      SCOPED_TRACE(testing::Message() << c.windows << " windows of " << c.window << ", " << c.heads << " on "
                                      << c.kv_heads << " heads of " << c.head_dim);
      const AttentionShape shape = {c.windows * c.window, c.window, c.heads, c.kv_heads, c.head_dim};
      const Inputs in(shape, GetParam().dtype);
      // The slowest part; once for all kernels.
      static std::map<std::pair<const ExactCase*, DType>, Exact> kept;
      auto place = kept.find({&c, in.dtype});
      if (place == kept.end()) place = kept.emplace(std::pair(&c, in.dtype), Attend(in)).first;
      check(in, place->second);
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Kernels, ExactAttention,
                         testing::Values(Kernel{"ref_fp32", true, DType::kF32, false},
                                         Kernel{"ref_bf16", true, DType::kBF16, false},
                                         Kernel{"cpu_fp32", false, DType::kF32, false},
                                         Kernel{"cpu_bf16_widened", false, DType::kBF16, false},
                                         Kernel{"cpu_bf16_native", false, DType::kBF16, true}),
                         [](const auto& info) { return info.param.name; });

TEST_P(ExactAttention, IsSoftmaxOverWholeRowsInFp64) {
  ForCases([&](const Inputs& in, const Exact& exact) {
    const Output output = Forward(GetParam(), in);
    EXPECT_LE(Worst(output.log_sums, exact.log_sums), ref() ? 1e-6 : 3e-6);
    if (half()) {
      // Rounding of a result is at most 1/256 of it; the blocked kernel rounds probabilities as well.
      EXPECT_LE(Worst(output.out, exact.out), ref() ? 1.0 / 256 : 2.0 / 256);
      EXPECT_LE(Relative(output.out, exact.out), ref() ? 0.5 / 256 : 0.75 / 256);
    } else {
      EXPECT_LE(Worst(output.out, exact.out), ref() ? 1e-6 : 5e-6);
    }
  });
}

TEST_P(ExactAttention, GradientIsTheAnalyticOneInFp64) {
  ForCases([&](const Inputs& in, const Exact& exact) {
    const Gradients gradients = Backward(GetParam(), in, exact);
    const ExactGradient& given = half() ? exact.of_rounded : exact.gradient;
    for (const auto& [name, actual, expected, ideal] :
         {std::tuple{"q", &gradients.q, &given.q, &exact.gradient.q},
          std::tuple{"k", &gradients.k, &given.k, &exact.gradient.k},
          std::tuple{"v", &gradients.v, &given.v, &exact.gradient.v}}) {
      // The reference's results are FP32 in both precisions.
      EXPECT_LE(Worst(*actual, *expected), ref() ? 4e-6 : half() ? 0.02 : 1e-5) << name;
      // A window of one token passes no gradient to q and k.
      if (in.shape.window == 1) continue;
      EXPECT_LE(Relative(*actual, *expected), ref() ? 2e-6 : half() ? 4e-3 : 5e-6) << name;
      if (!half()) continue;
      // What BF16 costs in all; most of it is the rounding of `out`, up to .012 of q and k in long windows.
      EXPECT_LE(Worst(*actual, *ideal), 0.03) << name;
      EXPECT_LE(Relative(*actual, *ideal), 0.015) << name;
    }
  });
}

TEST_P(ExactAttention, WithoutLogSumsTheOutputIsTheSame) {
  const Inputs in({260, 130, 4, 2, 6}, GetParam().dtype);
  const Output with = Forward(GetParam(), in), without = Forward(GetParam(), in, false);
  EXPECT_EQ(with.out, without.out);
  for (const float value : with.log_sums) EXPECT_FALSE(std::isnan(value));
  for (const float value : without.log_sums) EXPECT_TRUE(std::isnan(value));
}

TEST(AttentionOracle, AnalyticGradientIsTheDerivativeOfTheExactOutput) {
  // Central differences in the double-precision definition hold the oracle itself.
  Inputs in({10, 5, 4, 2, 6}, DType::kF32);
  const Exact exact = Attend(in);
  const float step = 0x1p-10f;  // inputs are FP32: steps are exact to 2^-13 of themselves
  // The loss with `value` moved, and how far it has really moved.
  const auto moved = [&](float& value, float by) {
    const float before = value;
    value += by;
    const Exact at = Attend(in);
    double loss = 0;
    for (size_t i = 0; i < at.out.size(); ++i) loss += at.out[i] * in.grad_out[i];
    const double actual = double{value} - before;
    value = before;
    return std::pair(loss, actual);
  };
  for (const auto& [values, gradient] :
       {std::pair{&in.q, &exact.gradient.q}, {&in.k, &exact.gradient.k}, {&in.v, &exact.gradient.v}}) {
    for (size_t i = 0; i < values->size(); ++i) {
      const auto [above, up] = moved((*values)[i], step);
      const auto [below, down] = moved((*values)[i], -step);
      EXPECT_NEAR((above - below) / (up - down), (*gradient)[i], 1e-5) << i;
    }
  }
}

}  // namespace
}  // namespace mica
