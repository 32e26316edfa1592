// The backward pass against central differences of the double-precision reference, at every linear layer of
// random models of many shapes.
#include "model/backward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/threads.h"
#include "device/precision.h"
#include "ops/convert/convert.h"
#include "tests/model/reference_forward.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

// Everything the hook was given, by layer and kind: gradients and inputs of all tokens.
struct Collected {
  std::map<std::pair<size_t, LinearKind>, Matrix<float>> gradients, inputs;
  BackwardResult result;
};

Collected Collect(const ModelWeights& weights, const std::vector<int32_t>& ids, size_t window,
                  const BackwardSettings& settings = {}) {
  Collected all;
  std::map<std::pair<size_t, LinearKind>, size_t> seen;
  all.result = RunBackward(weights, ids, window, settings, [&](const LinearGradient& g) {
    const auto key = std::pair(g.layer, g.kind);
    const MatrixShape shape = LinearShape(weights.config(), g.kind);
    EXPECT_EQ(g.gradient.cols, shape.rows);
    EXPECT_EQ(g.inputs.cols, shape.cols);
    EXPECT_EQ(g.inputs.rows, g.gradient.rows);
    EXPECT_EQ(g.first_token, seen[key]);  // each token once, in rising order
    seen[key] += g.gradient.rows;
    Matrix<float>& gradient = all.gradients.try_emplace(key, ids.size(), shape.rows).first->second;
    Matrix<float>& inputs = all.inputs.try_emplace(key, ids.size(), shape.cols).first->second;
    Convert(g.gradient, gradient.view().Rows(g.first_token, g.gradient.rows));
    Convert(g.inputs, inputs.view().Rows(g.first_token, g.inputs.rows));
  });
  EXPECT_EQ(seen.size(), weights.config().layers * kLinearKinds.size());
  for (const auto& [key, tokens] : seen) EXPECT_EQ(tokens, ids.size());
  return all;
}

struct ShapeCase {
  const char* name;
  Json changes;
};
void PrintTo(const ShapeCase& shape, std::ostream* out) { *out << shape.name; }

class BackwardShapes : public testing::TestWithParam<ShapeCase> {};
INSTANTIATE_TEST_SUITE_P(
    Random, BackwardShapes,
    testing::Values(ShapeCase{"Gqa", Json::object()},
                    ShapeCase{"Mha", {{"num_key_value_heads", 4}, {"tie_word_embeddings", true}}},
                    ShapeCase{"Mqa",
                              {{"num_key_value_heads", 1}, {"head_dim", 10}, {"intermediate_size", 33}}},
                    ShapeCase{"Biases", {{"attention_bias", true}, {"mlp_bias", true}}}),
    [](const auto& info) { return info.param.name; });

TEST_P(BackwardShapes, MatchesCentralDifferences) {
  Json json = TinyConfig();
  json.update(GetParam().changes);
  const TinyModel model(json);
  const size_t window = 9;
  const std::vector<int32_t> ids = RandomIds(2 * window, model.config().vocab, 11);
  const Collected fp32 = Collect(model.weights(), ids, window);
  BackwardSettings bf16_settings;
  bf16_settings.precision = Precision::kBf16;
  const Collected bf16 = Collect(model.weights(), ids, window, bf16_settings);

  const reference::Model reference(model.weights().checkpoint(), model.config());
  // The summed likelihood of one window's predictions with one output moved.
  const auto loss = [&](size_t start, const reference::Nudge& nudge) {
    const std::vector<int32_t> part(ids.begin() + static_cast<ptrdiff_t>(start),
                                    ids.begin() + static_cast<ptrdiff_t>(start + window));
    std::vector<int32_t> targets(part.begin() + 1, part.end());
    targets.push_back(-1);
    double sum = 0.0;
    for (const double nll : reference.Nll(part, targets, nudge)) sum += nll;
    return sum;
  };
  EXPECT_NEAR(fp32.result.nll, loss(0, {}) + loss(window, {}), 1e-3);
  EXPECT_EQ(fp32.result.predictions, 2 * (window - 1));

  double squares = 0.0, bf16_errors = 0.0;
  for (size_t layer = 0; layer < model.config().layers; ++layer) {
    for (const LinearKind kind : kLinearKinds) {
      const Matrix<float>& gradient = fp32.gradients.at({layer, kind});
      for (const size_t token : {size_t{0}, size_t{4}, size_t{8}, window, window + 6}) {
        for (const size_t row : {size_t{0}, gradient.cols() / 2, gradient.cols() - 1}) {
          const size_t start = token / window * window;
          const double step = 1e-4;
          reference::Nudge nudge = {LinearTensorName(layer, kind), token - start, row, step};
          const double above = loss(start, nudge);
          nudge.amount = -step;
          const double expected = (above - loss(start, nudge)) / (2 * step);
          EXPECT_NEAR(gradient(token, row), expected, 2e-5 + 2e-4 * std::fabs(expected))
              << LinearTensorName(layer, kind) << " token " << token << " row " << row;
          squares += expected * expected;
          bf16_errors += std::pow(bf16.gradients.at({layer, kind})(token, row) - expected, 2);
        }
      }
    }
  }
  EXPECT_GT(squares, 0.0);
  EXPECT_LT(std::sqrt(bf16_errors / squares), 0.05);  // BF16 arithmetic: a few percent
}

TEST(Backward, HandsOutTheInputsOfTheForwardPass) {
  const TinyModel model(TinyConfig());
  const std::vector<int32_t> ids = RandomIds(40, 50, 12);
  const Collected all = Collect(model.weights(), ids, 20);
  Matrix<float> x(40, 24);
  model.weights().Embed(ids, x);
  for (size_t index = 0; index < 2; ++index) {
    DecoderLayer(model.weights(), index, Precision::kFp32)
        .Forward(x, 20, [&](InputKind input, ConstTensor values) {
          for (const LinearKind kind : kLinearKinds) {
            if (InputOf(kind) != input) continue;
            const Matrix<float>& collected = all.inputs.at({index, kind});
            for (size_t t = 0; t < 40; ++t) {
              for (size_t i = 0; i < values.cols; ++i)
                ASSERT_NEAR(collected(t, i), values.host<float>()(t, i), 1e-6);
            }
          }
        });
  }
}

// Long windows pass several blocks of attention; they are compared with the same windows in other groups and
// on other threads.
TEST(Backward, ThreadsAndGroupsDoNotChangeResults) {
  const TinyModel model(TinyConfig());
  const std::vector<int32_t> ids = RandomIds(3 * 150, 50, 13);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    BackwardSettings settings;
    settings.precision = precision;
    size_t advanced = 0;
    settings.advance = [&](size_t tokens) { advanced += tokens; };
    SetThreads(2);
    const Collected two = Collect(model.weights(), ids, 150, settings);
    EXPECT_EQ(advanced, 2 * 2 * ids.size());
    SetThreads(1);
    const Collected one = Collect(model.weights(), ids, 150, settings);
    SetThreads(0);
    settings.stored_bytes = 1;  // one window at a time
    const Collected apart = Collect(model.weights(), ids, 150, settings);
    EXPECT_EQ(one.result.nll, two.result.nll);
    EXPECT_NEAR(apart.result.nll, two.result.nll, 1e-3 * two.result.nll);
    for (const auto& [key, gradient] : two.gradients) {
      const Matrix<float>& other = one.gradients.at(key);
      EXPECT_TRUE(std::equal(gradient.data(), gradient.data() + gradient.size(), other.data()));
      double difference = 0.0, squares = 0.0;
      for (size_t i = 0; i < gradient.size(); ++i) {
        difference += std::pow(double{gradient.data()[i]} - apart.gradients.at(key).data()[i], 2);
        squares += std::pow(double{gradient.data()[i]}, 2);
      }
      EXPECT_LE(std::sqrt(difference / squares), precision == Precision::kFp32 ? 1e-5 : 0.05);
    }
  }
}

TEST(Backward, SampledLabelsFollowTheModel) {
  // The expected gradient under the model's own distribution is zero; the mean over draws must come near it
  // and each draw must not.
  Json json = TinyConfig();
  json["vocab_size"] = 11;
  json["num_hidden_layers"] = 1;
  const TinyModel model(json);
  const std::vector<int32_t> ids = RandomIds(6, 11, 14);
  constexpr size_t kDraws = 150;
  std::vector<double> mean(24, 0.0), square(24, 0.0);
  for (size_t draw = 0; draw < kDraws; ++draw) {
    BackwardSettings settings;
    settings.sample_labels = true;
    settings.seed = 1000 * draw;
    const Collected all = Collect(model.weights(), ids, 6, settings);
    const Matrix<float>& gradient = all.gradients.at({0, LinearKind::kDown});
    for (size_t i = 0; i < 24; ++i) {
      mean[i] += gradient(2, i) / double{kDraws};
      square[i] += gradient(2, i) * gradient(2, i) / double{kDraws};
    }
    if (draw == 0) {
      const Collected again = Collect(model.weights(), ids, 6, settings);
      EXPECT_TRUE(std::equal(gradient.data(), gradient.data() + gradient.size(),
                             again.gradients.at({0, LinearKind::kDown}).data()));
      EXPECT_EQ(all.result.nll, Collect(model.weights(), ids, 6).result.nll);  // always that of the text
    }
  }
  for (size_t i = 0; i < 24; ++i) {
    EXPECT_GT(square[i], 0.0);
    EXPECT_LT(std::fabs(mean[i]), 4.5 * std::sqrt(square[i] / kDraws)) << i;
  }
}

}  // namespace
}  // namespace mica
