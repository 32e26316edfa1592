// The backward pass against central differences of the double-precision reference, at every linear layer of
// random models of many shapes.
#include "model/backward.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
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
                  const BackwardSettings& settings = {}, size_t stored_bytes = size_t{2} << 30) {
  Collected all;
  std::map<std::pair<size_t, LinearKind>, size_t> seen;
  all.result = RunBackward(weights, ids, window, stored_bytes, settings, [&](const LinearGradient& g) {
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

class BackwardShapes : public testing::TestWithParam<ShapeCase> {};
INSTANTIATE_TEST_SUITE_P(
    Random, BackwardShapes,
    testing::Values(ShapeCase{"Gqa", Json::object()},
                    ShapeCase{"Mha", {{"num_key_value_heads", 4}, {"tie_word_embeddings", true}}},
                    ShapeCase{"Mqa",
                              {{"num_key_value_heads", 1}, {"head_dim", 10}, {"intermediate_size", 33}}},
                    ShapeCase{"Biases", {{"attention_bias", true}, {"mlp_bias", true}}}),
    [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Architectures, BackwardShapes, testing::ValuesIn(ArchitectureCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(BackwardShapes, MatchesCentralDifferences) {
  Json json = TinyConfig();
  json.update(GetParam().changes);
  const TinyModel model(json);
  const size_t window = 9;
  const std::vector<int32_t> ids = RandomIds(2 * window, model.config().vocab, 11);
  const Collected fp32 = Collect(model.weights(), ids, window);
  BackwardSettings bf16_settings;
  bf16_settings.arithmetic = Precision::kBf16;
  const Collected bf16 = Collect(model.weights(), ids, window, bf16_settings);

  const reference::Model reference(model.weights().checkpoint(), model.config());
  const std::vector<std::vector<int32_t>> windows = {
      {ids.begin(), ids.begin() + static_cast<ptrdiff_t>(window)},
      {ids.begin() + static_cast<ptrdiff_t>(window), ids.end()}};
  EXPECT_NEAR(fp32.result.nll,
              reference::WindowNll(reference, windows[0]) + reference::WindowNll(reference, windows[1]),
              1e-3);
  EXPECT_EQ(fp32.result.predictions, 2 * (window - 1));

  double squares = 0.0, bf16_errors = 0.0;
  for (size_t layer = 0; layer < model.config().layers; ++layer) {
    for (const LinearKind kind : kLinearKinds) {
      const Matrix<float>& gradient = fp32.gradients.at({layer, kind});
      for (const size_t token : {size_t{0}, size_t{4}, size_t{8}, window, window + 6}) {
        for (const size_t row : {size_t{0}, gradient.cols() / 2, gradient.cols() - 1}) {
          const double expected = reference::OutputGradient(
              reference, windows[token / window], LinearTensorName(*model.config().family, layer, kind),
              token % window, row);
          EXPECT_NEAR(gradient(token, row), expected, 2e-5 + 2e-4 * std::fabs(expected))
              << LinearTensorName(*model.config().family, layer, kind) << " token " << token << " row "
              << row;
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

// Bit by bit: the likelihood, and what the hook was given.
void ExpectSame(const Collected& a, const Collected& b) {
  EXPECT_EQ(a.result.nll, b.result.nll);
  EXPECT_EQ(a.result.predictions, b.result.predictions);
  for (const auto part : {&Collected::gradients, &Collected::inputs}) {
    for (const auto& [key, matrix] : a.*part) {
      const Matrix<float>& other = (b.*part).at(key);
      EXPECT_EQ(std::memcmp(matrix.data(), other.data(), matrix.size() * sizeof(float)), 0);
    }
  }
}

// Long windows pass several blocks of attention; two of them make a run, and there are three runs.
TEST(Backward, ThreadsAndGroupsDoNotChangeResults) {
  const TinyModel model(TinyConfig());
  constexpr size_t kWindow = 700, kWindows = 5;
  const std::vector<int32_t> ids = RandomIds(kWindows * kWindow, 50, 13);
  const size_t window_bytes = 2 * kWindow * 24 * sizeof(float), matrices = 2 * kLinearKinds.size();
  struct Limit {
    size_t bytes, groups;
  };
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    for (const bool sample : {false, true}) {
      BackwardSettings settings;
      settings.arithmetic = precision;
      settings.sample_labels = sample;
      size_t advanced = 0;
      settings.advance = [&](size_t tokens) { advanced += tokens; };
      SetThreads(2);
      const Collected all = Collect(model.weights(), ids, kWindow, settings, 6 * window_bytes);
      EXPECT_EQ(advanced, 2 * 2 * ids.size());
      SetThreads(1);
      ExpectSame(all, Collect(model.weights(), ids, kWindow, settings, 6 * window_bytes));
      SetThreads(0);
      for (const Limit limit :
           {Limit{1, 3}, Limit{2 * window_bytes, 3}, Limit{3 * window_bytes, 3}, Limit{4 * window_bytes, 2},
            Limit{6 * window_bytes - 1, 2}, Limit{6 * window_bytes, 1}}) {
        const uint64_t before = ModelWeights::LinearReads();
        ExpectSame(all, Collect(model.weights(), ids, kWindow, settings, limit.bytes));
        // Each matrix once on the way forward and once on the way back.
        EXPECT_EQ(ModelWeights::LinearReads() - before, 2 * matrices * limit.groups) << limit.bytes;
      }
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
