// Attention and its gradient on a CUDA device against the scalar reference on the processor.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/attention/attention.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

struct Case {
  size_t windows, window, heads, kv_heads, head_dim;
  float soft_cap = 0;
  size_t sliding = 0;
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.windows << " windows of " << c.window << ", " << c.heads << " on " << c.kv_heads << " heads of "
       << c.head_dim << ", cap " << c.soft_cap << ", sliding " << c.sliding;
}
// Windows on either side of tiles of 32 and 64 keys and of blocks of 64 and 128 queries; every width of
// tiles, full and padded; the last ones no tile takes in BF16.
constexpr Case kCases[] = {{1, 1, 4, 4, 64},
                           {3, 1, 6, 2, 8},
                           {3, 7, 4, 4, 16},
                           {2, 7, 6, 2, 128},
                           {2, 31, 2, 1, 256},
                           {2, 33, 2, 2, 96},
                           {2, 64, 4, 4, 8},
                           {1, 64, 6, 2, 256},
                           {3, 65, 6, 2, 64},
                           {2, 65, 4, 4, 128},
                           {1, 127, 2, 1, 128},
                           {2, 129, 4, 2, 128},
                           {2, 200, 4, 4, 96},
                           {1, 200, 6, 2, 128},
                           {2, 200, 2, 1, 256},
                           {2, 200, 66, 33, 16},
                           {1, 1024, 2, 2, 64},
                           {1, 1024, 2, 1, 128},
                           {3, 7, 2, 1, 5},
                           {1, 130, 3, 3, 20},
                           {2, 70, 2, 1, 264},
                           // Scores capped, fewer keys in sight.
                           {1, 130, 2, 1, 64, 2.0f},
                           {1, 70, 2, 2, 128, 5.0f},
                           {1, 70, 2, 1, 12, 2.0f},
                           {1, 300, 2, 1, 128, 0, 100},
                           {2, 200, 2, 1, 64, 0, 1},
                           {2, 200, 2, 1, 64, 3.0f, 64},
                           {1, 150, 2, 2, 256, 2.0f, 33},
                           {1, 150, 2, 2, 20, 2.0f, 33},
                           {1, 65, 2, 1, 64, 0, 65}};

class AttentionOnCuda : public testing::TestWithParam<std::tuple<DType, Case>> {
 protected:
  void SetUp() override { MICA_NEEDS_CUDA(); }
  DType dtype() const { return std::get<0>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Types, AttentionOnCuda,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16),
                                          testing::ValuesIn(kCases)),
                         [](const auto& info) {
                           const Case& c = std::get<1>(info.param);
                           return std::string(DTypeName(std::get<0>(info.param))) + "_" +
                                  std::to_string(c.windows) + "x" + std::to_string(c.window) + "_" +
                                  std::to_string(c.heads) + "on" + std::to_string(c.kv_heads) + "x" +
                                  std::to_string(c.head_dim) + (c.soft_cap > 0 ? "_capped" : "") +
                                  (c.sliding > 0 ? "_sliding" + std::to_string(c.sliding) : "");
                         });

// q, k and v of one case, here and there.
struct Operands {
  // Scores of some standard deviations: the softmax has to rescale.
  Operands(const Case& c, DType dtype, float q_scale)
      : shape{c.windows * c.window, c.window, c.heads, c.kv_heads, c.head_dim},
        q(RandomTensor(c.heads * shape.tokens, c.head_dim, dtype, 11, q_scale)),
        k(RandomTensor(c.kv_heads * shape.tokens, c.head_dim, dtype, 12)),
        v(RandomTensor(c.kv_heads * shape.tokens, c.head_dim, dtype, 13)),
        q_there(OnCuda(q.view())),
        k_there(OnCuda(k.view())),
        v_there(OnCuda(v.view())),
        soft_cap(c.soft_cap),
        sliding(c.sliding) {}
  size_t width() const { return shape.heads * shape.head_dim; }
  AttentionInputs here() const { return With({q.view(), k.view(), v.view()}); }
  AttentionInputs there() const { return With({q_there.view(), k_there.view(), v_there.view()}); }
  AttentionInputs With(AttentionInputs in) const {
    in.factor = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    in.soft_cap = soft_cap;
    in.sliding = sliding;
    return in;
  }
  AttentionShape shape;
  Array q, k, v, q_there, k_there, v_there;
  float soft_cap;
  size_t sliding;
};

TEST_P(AttentionOnCuda, MatchesTheReference) {
  const Operands in(std::get<1>(GetParam()), dtype(), 3.0f);
  const size_t tokens = in.shape.tokens, width = in.width();
  Array expected = Poisoned(tokens, width, dtype()),
        expected_sums = Poisoned(in.shape.heads, tokens, DType::kF32);
  AttentionRef(in.shape, in.here(), expected.view(), expected_sums.view());
  // Rows that lie apart and begin at odd places.
  Array there = PoisonedOnCuda(tokens, width + 4, dtype()),
        sums = PoisonedOnCuda(in.shape.heads, tokens, DType::kF32);
  Attention(in.shape, in.there(), there.view().Cols(1, width), sums.view());
  const Array actual = CopyTo(Device::Cpu(), there.view());
  const std::vector<float> values = Floats(actual.view().Cols(1, width));
  // Probabilities are rounded to BF16 before they are multiplied.
  EXPECT_LE(WorstError(values, Floats(expected.view())), dtype() == DType::kF32 ? 1e-5 : 0.015);
  EXPECT_TRUE(AllNan(actual.view().Cols(0, 1)) && AllNan(actual.view().Cols(width + 1, 3)));
  EXPECT_LE(WorstError(FloatsOf(sums), Floats(expected_sums.view())), 1e-5);
  // The same bytes again, in dense rows and without the sums.
  Array dense = PoisonedOnCuda(tokens, width, dtype());
  Attention(in.shape, in.there(), dense.view(), {});
  EXPECT_EQ(FloatsOf(dense), values);
}

TEST_P(AttentionOnCuda, GradientMatchesTheReference) {
  const Operands in(std::get<1>(GetParam()), dtype(), 2.0f);
  const size_t tokens = in.shape.tokens, width = in.width();
  const Array felt = RandomTensor(tokens, width, DType::kF32, 34);
  Array out(tokens, width, dtype()), log_sums = Poisoned(in.shape.heads, tokens, DType::kF32);
  AttentionRef(in.shape, in.here(), out.view(), log_sums.view());
  const auto run = [&](auto gradient, const AttentionInputs& inputs, const AttentionFeedback& feedback) {
    const Device device = inputs.q.device;
    Array gradients[] = {Poisoned(in.q.rows(), in.shape.head_dim, DType::kF32),
                         Poisoned(in.k.rows(), in.shape.head_dim, DType::kF32),
                         Poisoned(in.v.rows(), in.shape.head_dim, DType::kF32)};
    for (Array& x : gradients) x = CopyTo(device, x.view());
    gradient(in.shape, inputs, feedback, {gradients[0].view(), gradients[1].view(), gradients[2].view()});
    std::vector<std::vector<float>> all;
    for (const Array& x : gradients) all.push_back(FloatsOf(x));
    return all;
  };
  const auto expected = run(AttentionGradientRef, in.here(), {out.view(), log_sums.view(), felt.view()});
  Array out_there = PoisonedOnCuda(tokens, width + 3, dtype()),
        felt_there = PoisonedOnCuda(tokens, width + 1, DType::kF32);
  const Array log_sums_there = OnCuda(log_sums.view());
  Copy(out.view(), out_there.view().Cols(1, width));
  Copy(felt.view(), felt_there.view().Cols(0, width));
  const AttentionFeedback feedback = {out_there.view().Cols(1, width), log_sums_there.view(),
                                      felt_there.view().Cols(0, width)};
  const auto actual = run(AttentionGradient, in.there(), feedback);
  for (size_t i = 0; i < 3; ++i) {
    // With BF16, probabilities and score gradients are rounded before they are summed.
    EXPECT_LE(WorstError(actual[i], expected[i]), dtype() == DType::kF32 ? 2e-5 : 0.02) << "qkv"[i];
  }
  EXPECT_EQ(run(AttentionGradient, in.there(), feedback), actual);
}

}  // namespace
}  // namespace mica
