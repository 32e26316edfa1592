// Attention and its gradient against the scalar reference, with and without native BF16, and their
// independence of the number of threads.
#include "ops/attention/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "base/threads.h"
#include "ops/tile/tile_product.h"
#include "tests/ops/tensors.h"

namespace mica {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(AttentionRef, ByHand) {
  // One head of two channels, one window of two tokens; the second query's scores are ln 3 and 0: weights 3/4
  // and 1/4.
  const AttentionShape shape = {2, 2, 1, 1, 2};
  const Array q = FromFloats({1, 1, 1, 0}, 2, 2, DType::kF32),
              k = FromFloats({std::log(3.0f), 0, 0, 5}, 2, 2, DType::kF32),
              v = FromFloats({4, 8, 0, 16}, 2, 2, DType::kF32);
  Matrix<float> out(2, 2, kNan), log_sums(1, 2, kNan);
  AttentionRef(shape, {q.view(), k.view(), v.view(), 1.0f}, out, log_sums);
  EXPECT_FLOAT_EQ(out(0, 0), 4);
  EXPECT_FLOAT_EQ(out(0, 1), 8);
  EXPECT_FLOAT_EQ(out(1, 0), 3);
  EXPECT_FLOAT_EQ(out(1, 1), 10);
  EXPECT_FLOAT_EQ(log_sums(0, 0), std::log(3.0f));
  EXPECT_FLOAT_EQ(log_sums(0, 1), std::log(4.0f));
  // A score of ln 3 capped at ln 2: ln 2 tanh(ln 3 / ln 2).
  const float weight = std::exp(std::log(2.0f) * std::tanh(std::log(3.0f) / std::log(2.0f)));
  AttentionRef(shape, {q.view(), k.view(), v.view(), 1.0f, std::log(2.0f)}, out, log_sums);
  EXPECT_FLOAT_EQ(out(1, 0), 4 * weight / (weight + 1));
  EXPECT_FLOAT_EQ(log_sums(0, 1), std::log(weight + 1));
  // The last token alone.
  AttentionRef(shape, {q.view(), k.view(), v.view(), 1.0f, 0, 1}, out, log_sums);
  EXPECT_FLOAT_EQ(out(1, 0), 0);
  EXPECT_FLOAT_EQ(out(1, 1), 16);
  EXPECT_FLOAT_EQ(log_sums(0, 1), 0);
}

TEST(AttentionRef, GradientIsTheSlopeOfCappedScoresInSight) {
  const AttentionShape shape = {10, 5, 2, 1, 3};
  std::vector<float> q = RandomValues(60, 1, 2.0f), k = RandomValues(30, 2), v = RandomValues(30, 3);
  const Array felt = RandomTensor(10, 6, DType::kF32, 4);
  const auto inputs = [&](const Array& q_at, const Array& k_at, const Array& v_at) {
    return AttentionInputs{q_at.view(), k_at.view(), v_at.view(), 0.7f, 1.5f, 3};
  };
  const auto at = [](const std::vector<float>& values) {
    return FromFloats(values, values.size() / 3, 3, DType::kF32);
  };
  Matrix<float> out(10, 6), log_sums(2, 10), grad_q(20, 3), grad_k(10, 3), grad_v(10, 3);
  const auto loss = [&] {
    const Array q_at = at(q), k_at = at(k), v_at = at(v);
    AttentionRef(shape, inputs(q_at, k_at, v_at), out, log_sums);
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += double{out.data()[i]} * felt.view().host<float>().data[i];
    return sum;
  };
  loss();
  const Array q_at = at(q), k_at = at(k), v_at = at(v);
  AttentionGradientRef(shape, inputs(q_at, k_at, v_at), {out, log_sums, felt.view()},
                       {grad_q, grad_k, grad_v});
  for (auto [values, gradient] : {std::pair{&q, &grad_q}, {&k, &grad_k}, {&v, &grad_v}}) {
    for (size_t i = 0; i < values->size(); ++i) {
      constexpr float kStep = 1.0f / 64;
      const float value = (*values)[i];
      (*values)[i] = value + kStep;
      const double above = loss();
      (*values)[i] = value - kStep;
      const double below = loss();
      (*values)[i] = value;
      EXPECT_NEAR(gradient->data()[i], (above - below) / (2 * kStep), 1e-3) << i;
    }
  }
}

struct AttentionCase {
  size_t windows, window, heads, kv_heads, head_dim;
  float soft_cap = 0;
  size_t sliding = 0;
};
// Windows on either side of the query block (128) and key block (512); MHA, GQA, MQA; heads that fill no
// vector. Then capped scores and fewer keys in sight: within a block of keys, across two, of blocks that see
// none.
constexpr AttentionCase kCases[] = {
    {1, 1, 1, 1, 2},          {3, 7, 2, 1, 16},        {2, 127, 4, 2, 8},
    {1, 128, 3, 3, 20},       {2, 129, 2, 2, 64},      {1, 511, 2, 1, 32},
    {1, 513, 4, 4, 24},       {1, 650, 6, 2, 40},      {1, 1100, 2, 1, 128},
    {2, 130, 2, 1, 16, 2.0f}, {2, 70, 2, 1, 16, 0, 9}, {1, 1100, 2, 1, 16, 3.0f, 520},
    {1, 1100, 2, 2, 8, 0, 1}};

// q, k and v of one case.
struct Operands {
  // Scores of some standard deviations: the softmax has to rescale.
  Operands(const AttentionCase& c, DType dtype, float q_scale)
      : shape{c.windows * c.window, c.window, c.heads, c.kv_heads, c.head_dim},
        q(RandomTensor(c.heads * shape.tokens, c.head_dim, dtype, 11, q_scale)),
        k(RandomTensor(c.kv_heads * shape.tokens, c.head_dim, dtype, 12)),
        v(RandomTensor(c.kv_heads * shape.tokens, c.head_dim, dtype, 13)),
        soft_cap(c.soft_cap),
        sliding(c.sliding) {}
  AttentionInputs inputs() const {
    return {q.view(), k.view(), v.view(), 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
            soft_cap, sliding};
  }
  AttentionShape shape;
  Array q, k, v;
  float soft_cap;
  size_t sliding;
};

// By type, and with native BF16 products as the processor has them or on the widening path.
class AttentionTest : public testing::TestWithParam<std::tuple<DType, bool>> {
 protected:
  void SetUp() override {
    AllowNativeBf16(native());
    if (native() && !NativeBf16()) GTEST_SKIP() << "this processor has no native BF16 products";
  }
  void TearDown() override { AllowNativeBf16(true); }
  DType dtype() const { return std::get<0>(GetParam()); }
  bool native() const { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Types, AttentionTest,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16), testing::Bool()),
                         [](const auto& info) {
                           return std::string(DTypeName(std::get<0>(info.param))) +
                                  (std::get<1>(info.param) ? "Native" : "Widened");
                         });

TEST_P(AttentionTest, MatchesTheReference) {
  for (const AttentionCase& c : kCases) {
    const Operands in(c, dtype(), 3.0f);
    const size_t tokens = in.shape.tokens, width = c.heads * c.head_dim;
    Array expected = Poisoned(tokens, width, dtype()), actual = Poisoned(tokens, width, dtype()),
          unasked = Poisoned(tokens, width, dtype());
    Array expected_sums = Poisoned(c.heads, tokens, DType::kF32),
          actual_sums = Poisoned(c.heads, tokens, DType::kF32);
    AttentionRef(in.shape, in.inputs(), expected.view(), expected_sums.view());
    Attention(in.shape, in.inputs(), actual.view(), actual_sums.view());
    // Probabilities are rounded to BF16 before they are multiplied.
    EXPECT_LE(WorstError(Floats(actual.view()), Floats(expected.view())),
              dtype() == DType::kF32 ? 1e-5 : 0.015)
        << c.window << " x " << c.head_dim;
    EXPECT_LE(WorstError(Floats(actual_sums.view()), Floats(expected_sums.view())), 1e-5);
    Attention(in.shape, in.inputs(), unasked.view(), {});
    EXPECT_EQ(Floats(unasked.view()), Floats(actual.view()));
  }
}

TEST_P(AttentionTest, GradientMatchesTheReference) {
  for (const AttentionCase& c : kCases) {
    const Operands in(c, dtype(), 2.0f);
    const size_t tokens = in.shape.tokens, width = c.heads * c.head_dim;
    const Array felt = RandomTensor(tokens, width, DType::kF32, 34);
    Array out(tokens, width, dtype()), log_sums = Poisoned(c.heads, tokens, DType::kF32);
    AttentionRef(in.shape, in.inputs(), out.view(), log_sums.view());
    const auto run = [&](auto gradient) {
      Array q = Poisoned(c.heads * tokens, c.head_dim, DType::kF32),
            k = Poisoned(c.kv_heads * tokens, c.head_dim, DType::kF32),
            v = Poisoned(c.kv_heads * tokens, c.head_dim, DType::kF32);
      gradient(in.shape, in.inputs(), AttentionFeedback{out.view(), log_sums.view(), felt.view()},
               AttentionGradients{q.view(), k.view(), v.view()});
      std::vector<float> all = Floats(q.view());
      for (const Array* part : {&k, &v}) {
        const std::vector<float> values = Floats(part->view());
        all.insert(all.end(), values.begin(), values.end());
      }
      return all;
    };
    // With BF16, probabilities and score gradients are rounded before they are summed.
    EXPECT_LE(WorstError(run(AttentionGradient), run(AttentionGradientRef)),
              dtype() == DType::kF32 ? 2e-5 : 0.02)
        << c.window << " x " << c.head_dim;
  }
}

TEST_P(AttentionTest, ThreadsDoNotChangeBits) {
  const Operands in({1, 600, 3, 1, 32}, dtype(), 1.0f);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2}) {
    SetThreads(threads);
    Array out = Poisoned(600, 96, dtype()), log_sums = Poisoned(3, 600, DType::kF32);
    Attention(in.shape, in.inputs(), out.view(), log_sums.view());
    Matrix<float> q(1800, 32, kNan), k(600, 32, kNan), v(600, 32, kNan);
    const Array felt = RandomTensor(600, 96, DType::kF32, 20);
    AttentionGradient(in.shape, in.inputs(), {out.view(), log_sums.view(), felt.view()}, {q, k, v});
    results.push_back(Floats(out.view()));
    for (const Matrix<float>* gradient : {&q, &k, &v}) results.push_back(Floats(*gradient));
  }
  SetThreads(0);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(results[i], results[i + 4]) << i;
}

TEST_P(AttentionTest, SharedHeadsAreRepeatedHeads) {
  const Operands shared({2, 70, 6, 2, 12}, dtype(), 1.0f);
  const AttentionShape repeated = {140, 70, 6, 6, 12};
  const auto repeat = [&](const Array& x) {
    const std::vector<float> values = Floats(x.view());
    std::vector<float> all;
    for (size_t head = 0; head < 6; ++head) {
      const auto start = values.begin() + static_cast<ptrdiff_t>(head / 3 * 140 * 12);
      all.insert(all.end(), start, start + 140 * 12);
    }
    return FromFloats(all, 6 * 140, 12, dtype());
  };
  const Array k = repeat(shared.k), v = repeat(shared.v);
  Array a = Poisoned(140, 72, dtype()), b = Poisoned(140, 72, dtype());
  Attention(shared.shape, {shared.q.view(), shared.k.view(), shared.v.view(), 0.3f}, a.view(), {});
  Attention(repeated, {shared.q.view(), k.view(), v.view(), 0.3f}, b.view(), {});
  EXPECT_EQ(Floats(a.view()), Floats(b.view()));
}

}  // namespace
}  // namespace mica
