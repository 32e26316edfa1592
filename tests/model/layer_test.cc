// The forward pass: against the double-precision reference on random models of many shapes, against the
// stored logits of trained checkpoints, and what must not change its results.
#include "model/layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "base/threads.h"
#include "device/array.h"
#include "device/precision.h"
#include "ops/convert/convert.h"
#include "ops/tile/tile_product.h"
#include "tests/model/reference_forward.h"
#include "tests/model/tiny_model.h"
#include "tests/source_dir.h"

namespace mica {
namespace {

// The residual stream after all layers for windows of `window` ids.
Matrix<float> Residual(const ModelWeights& weights, std::span<const int32_t> ids, size_t window,
                       Precision precision) {
  Matrix<float> x(ids.size(), weights.config().hidden);
  weights.Embed(ids, x);
  for (size_t layer = 0; layer < weights.config().layers; ++layer)
    DecoderLayer(weights, layer, precision).Forward(x, window);
  return x;
}

std::vector<float> Nll(const ModelWeights& weights, std::span<const int32_t> ids,
                       const std::vector<int32_t>& targets, size_t window, Precision precision) {
  const Matrix<float> x = Residual(weights, ids, window, precision);
  std::vector<float> nll(ids.size(), std::numeric_limits<float>::quiet_NaN());
  OutputHead(weights, precision).NegativeLogLikelihood(x, targets, nll);
  return nll;
}

std::vector<int32_t> NextTokens(const std::vector<int32_t>& ids, size_t window) {
  std::vector<int32_t> targets(ids.size(), -1);
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    if ((i + 1) % window != 0) targets[i] = ids[i + 1];
  }
  return targets;
}

bool SameBits(const Matrix<float>& a, const Matrix<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<ShapeCase> Shapes() {
  return {
      {"Gqa", Json::object()},
      {"Mha", {{"num_key_value_heads", 4}}},
      {"Mqa", {{"num_key_value_heads", 1}}},
      {"OddWidths",
       {{"hidden_size", 36},
        {"intermediate_size", 53},
        {"num_attention_heads", 6},
        {"num_key_value_heads", 3},
        {"vocab_size", 71}}},
      {"HeadDim", {{"head_dim", 18}, {"num_attention_heads", 3}, {"num_key_value_heads", 1}}},
      {"Tied", {{"tie_word_embeddings", true}}},
      {"Theta", {{"rope_theta", 500.0}}},
      {"RopeLinear", {{"rope_scaling", {{"type", "linear"}, {"factor", 3.0}}}}},
      {"RopeLlama3",
       {{"head_dim", 16},
        {"rope_scaling",
         {{"rope_type", "llama3"},
          {"factor", 8.0},
          {"low_freq_factor", 1.0},
          {"high_freq_factor", 4.0},
          {"original_max_position_embeddings", 64}}}}},
      {"Biases", {{"attention_bias", true}, {"mlp_bias", true}}},
  };
}

class ForwardShapes : public testing::TestWithParam<ShapeCase> {};
INSTANTIATE_TEST_SUITE_P(Random, ForwardShapes, testing::ValuesIn(Shapes()),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Architectures, ForwardShapes, testing::ValuesIn(ArchitectureCases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(ForwardShapes, MatchesTheReference) {
  Json json = TinyConfig();
  json.update(GetParam().changes);
  const TinyModel model(json);
  const size_t window = 37;
  const std::vector<int32_t> ids = RandomIds(2 * window, model.config().vocab, 3);
  const std::vector<int32_t> targets = NextTokens(ids, window);
  const reference::Model reference(model.weights().checkpoint(), model.config());
  std::vector<double> expected;
  for (const size_t start : {size_t{0}, window}) {
    const auto part = reference.Nll({ids.begin() + start, ids.begin() + start + window},
                                    {targets.begin() + start, targets.begin() + start + window});
    expected.insert(expected.end(), part.begin(), part.end());
  }
  const std::vector<float> fp32 = Nll(model.weights(), ids, targets, window, Precision::kFp32);
  for (size_t t = 0; t < ids.size(); ++t) EXPECT_NEAR(fp32[t], expected[t], 1e-4) << "token " << t;
  const std::vector<float> bf16 = Nll(model.weights(), ids, targets, window, Precision::kBf16);
  double mean_error = 0.0;
  for (size_t t = 0; t < ids.size(); ++t) {
    EXPECT_NEAR(bf16[t], expected[t], 0.25) << "token " << t;
    mean_error += (bf16[t] - expected[t]) / static_cast<double>(ids.size());
  }
  EXPECT_NEAR(mean_error, 0.0, 0.02);

  // Logits are those of the same pass.
  Matrix<float> logits(window, model.config().vocab, std::numeric_limits<float>::quiet_NaN());
  const Matrix<float> x = Residual(model.weights(), std::span(ids).first(window), window, Precision::kFp32);
  OutputHead(model.weights(), Precision::kFp32).Logits(x, logits);
  const reference::Rows expected_logits = reference.Logits({ids.begin(), ids.begin() + window});
  for (size_t t = 0; t < window; ++t) {
    for (size_t i = 0; i < model.config().vocab; ++i) EXPECT_NEAR(logits(t, i), expected_logits[t][i], 1e-4);
  }
}

// Token ids, likelihoods and last logits stored beside a trained checkpoint.
void CheckReferenceJson(const std::filesystem::path& directory) {
  const ModelWeights weights = ModelWeights::Open(directory);
  const Json reference = ReadJson(directory / "reference.json");
  const auto ids = reference["ids"].get<std::vector<int32_t>>();
  const auto nll = reference["nll"].get<std::vector<float>>();
  const std::vector<int32_t> targets = NextTokens(ids, ids.size());
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const double tolerance = precision == Precision::kFp32 ? 1e-3 : 0.15;
    const Matrix<float> x = Residual(weights, ids, ids.size(), precision);
    const OutputHead head(weights, precision);
    std::vector<float> actual(ids.size());
    head.NegativeLogLikelihood(x, targets, actual);
    ASSERT_EQ(nll.size(), ids.size() - 1);
    double total = 0.0, expected_total = 0.0;
    for (size_t i = 0; i < nll.size(); ++i) {
      EXPECT_NEAR(actual[i], nll[i], tolerance) << PrecisionName(precision) << " token " << i;
      total += actual[i], expected_total += nll[i];
    }
    EXPECT_NEAR(total / expected_total, 1.0, precision == Precision::kFp32 ? 1e-5 : 5e-3);
    Matrix<float> logits(1, weights.config().vocab);
    head.Logits(x.view().Rows(ids.size() - 1, 1), logits);
    for (size_t i = 0; i < 16; ++i)
      EXPECT_NEAR(logits(0, i), reference["last_logits_first16"][i].get<float>(), tolerance);
    for (const Json& top : reference["last_top8"])
      EXPECT_NEAR(logits(0, top[0].get<size_t>()), top[1].get<float>(), tolerance);
  }
}

TEST(Forward, DemoCheckpointGivesItsReferenceLogits) {
  CheckReferenceJson(SourceDir() / "models/demo");
}

TEST(Forward, BenchCheckpointGivesItsReferenceLogits) {
  const char* models = std::getenv("MICA_MODELS");
  if (models == nullptr || !std::filesystem::exists(std::filesystem::path(models) / "bench"))
    GTEST_SKIP() << "MICA_MODELS/bench is absent";
  CheckReferenceJson(std::filesystem::path(models) / "bench");
}

class BothPrecisions : public testing::TestWithParam<Precision> {};
INSTANTIATE_TEST_SUITE_P(Forward, BothPrecisions, testing::Values(Precision::kFp32, Precision::kBf16),
                         [](const auto& info) { return PrecisionName(info.param); });

TEST_P(BothPrecisions, LaterTokensDoNotMatter) {
  const TinyModel model(TinyConfig());
  std::vector<int32_t> ids = RandomIds(150, 50, 4);
  const Matrix<float> before = Residual(model.weights(), ids, 150, GetParam());
  for (size_t i = 131; i < 150; ++i) ids[i] = (ids[i] + 1) % 50;
  const Matrix<float> after = Residual(model.weights(), ids, 150, GetParam());
  EXPECT_EQ(std::memcmp(before.data(), after.data(), 131 * 24 * sizeof(float)), 0);
  for (size_t t = 131; t < 150; ++t) EXPECT_NE(before(t, 0), after(t, 0));
}

TEST_P(BothPrecisions, WindowsDoNotSeeEachOther) {
  const TinyModel model(TinyConfig());
  const size_t window = 130;
  const std::vector<int32_t> ids = RandomIds(3 * window, 50, 5);
  const Matrix<float> together = Residual(model.weights(), ids, window, GetParam());
  // The same bits but for the rounding of sums where products are not those of AVX-512.
  const double tolerance = GetParam() == Precision::kFp32 ? 1e-5 : 2e-2;
  for (size_t w = 0; w < 3; ++w) {
    const Matrix<float> alone =
        Residual(model.weights(), std::span(ids).subspan(w * window, window), window, GetParam());
    for (size_t i = 0; i < alone.size(); ++i)
      ASSERT_NEAR(alone.data()[i], together.row(w * window)[i], tolerance) << "window " << w;
  }
}

TEST_P(BothPrecisions, ThreadsDoNotChangeBits) {
  Json json = TinyConfig();
  json.update(Json{{"hidden_size", 96}, {"intermediate_size", 700}, {"vocab_size", 9000}});
  const TinyModel model(json);
  const std::vector<int32_t> ids = RandomIds(300, 9000, 6);
  SetThreads(1);
  const Matrix<float> one = Residual(model.weights(), ids, 150, GetParam());
  const std::vector<float> nll_one = Nll(model.weights(), ids, NextTokens(ids, 150), 150, GetParam());
  SetThreads(2);
  const Matrix<float> two = Residual(model.weights(), ids, 150, GetParam());
  const std::vector<float> nll_two = Nll(model.weights(), ids, NextTokens(ids, 150), 150, GetParam());
  SetThreads(0);
  EXPECT_TRUE(SameBits(one, two));
  EXPECT_EQ(nll_one, nll_two);
}

TEST_P(BothPrecisions, HookHandsOutTheInputsOfEveryLinear) {
  const TinyModel model(TinyConfig());
  const std::vector<int32_t> ids = RandomIds(66, 50, 7);
  Matrix<float> x(66, 24);
  model.weights().Embed(ids, x);
  const Matrix<float> start = x.Clone();
  const DecoderLayer layer(model.weights(), 0, GetParam());
  // From the inputs handed out, o and down must add up to what the layer adds.
  std::vector<InputKind> kinds;
  Matrix<float> sum = start.Clone();
  layer.Forward(x, 33, [&](InputKind kind, ConstTensor inputs) {
    kinds.push_back(kind);
    EXPECT_EQ(inputs.rows, 66u);
    const bool wide = kind == InputKind::kDown;
    EXPECT_EQ(inputs.cols, wide ? 40u : 24u);
    EXPECT_EQ(inputs.dtype, OperandType(GetParam()));
    if (kind != InputKind::kOutput && kind != InputKind::kDown) return;
    const Matrix<float> weights = model.weights().Linear(0, wide ? LinearKind::kDown : LinearKind::kO);
    Array buffer;
    const MatrixView<const float> values = Converted(inputs, DType::kF32, buffer).host<float>();
    for (size_t t = 0; t < 66; ++t) {
      for (size_t o = 0; o < 24; ++o) {
        for (size_t i = 0; i < inputs.cols; ++i) sum(t, o) += weights(o, i) * values(t, i);
      }
    }
  });
  EXPECT_THAT(kinds, testing::ElementsAreArray(kInputKinds));
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_NEAR(x.data()[i], sum.data()[i], GetParam() == Precision::kFp32 ? 1e-4 : 5e-2);
  // Without a hook: the same.
  Matrix<float> plain = start.Clone();
  layer.Forward(plain, 33);
  EXPECT_TRUE(SameBits(plain, x));
}

TEST_P(BothPrecisions, SetLinearReplacesOneMatrix) {
  const TinyModel a(TinyConfig(), 1), b(TinyConfig(), 2);
  DecoderLayer layer(a.weights(), 1, GetParam());
  const DecoderLayer other(b.weights(), 1, GetParam());
  for (const LinearKind kind : kLinearKinds) layer.SetLinear(kind, b.weights().Linear(1, kind));
  EXPECT_EQ(layer.weight_bytes(), other.weight_bytes());
  // The MLP after the norm depends on the matrices only.
  Matrix<float> values(5, 24);
  for (size_t i = 0; i < 5 * 24; ++i) values.data()[i] = static_cast<float>(i % 7) - 3.0f;
  Array normed(5, 24, OperandType(GetParam())), from_layer, from_other;
  Convert(values, normed.view());
  Matrix<float> x(5, 24, 0.0f), y(5, 24, 0.0f);
  layer.MlpHidden(normed.view(), from_layer);
  layer.AddMlp(from_layer.view(), x);
  other.MlpHidden(normed.view(), from_other);
  other.AddMlp(from_other.view(), y);
  EXPECT_TRUE(SameBits(x, y));
  EXPECT_NE(x(0, 0), 0.0f);
}

TEST_P(BothPrecisions, NllOverManySlicesEqualsLogits) {
  // More than one slice of the head, the last one short.
  Json json = TinyConfig();
  json["vocab_size"] = OutputHead::kSliceRows * 2 + 100;
  const TinyModel model(json);
  const size_t vocab = model.config().vocab;
  Matrix<float> x(9, 24);
  model.weights().Embed(RandomIds(9, vocab, 8), x);
  const OutputHead head(model.weights(), GetParam());
  Matrix<float> logits(9, vocab);
  head.Logits(x, logits);
  const std::vector<int32_t> targets = {0, 511, 512, 8191, 8192, 16384, 16483, -1, 20};
  std::vector<float> nll(9), again(9);
  head.NegativeLogLikelihood(x, targets, nll);
  for (size_t t = 0; t < 9; ++t) {
    double sum = 0.0;
    for (size_t i = 0; i < vocab; ++i) sum += std::exp(double{logits(t, i)});
    EXPECT_NEAR(nll[t], targets[t] < 0 ? 0.0 : std::log(sum) - logits(t, static_cast<size_t>(targets[t])),
                1e-4)
        << t;
  }
  head.NegativeLogLikelihood(x, targets, again);  // from the slices kept in memory
  EXPECT_EQ(nll, again);
}

TEST(Forward, WithoutNativeBf16TheProductsAreTheSame) {
  const TinyModel model(TinyConfig());
  const std::vector<int32_t> ids = RandomIds(60, 50, 9), targets = NextTokens(ids, 60);
  const std::vector<float> native = Nll(model.weights(), ids, targets, 60, Precision::kBf16);
  AllowNativeBf16(false);
  EXPECT_EQ(FastestPrecision(), Precision::kFp32);
  const std::vector<float> widened = Nll(model.weights(), ids, targets, 60, Precision::kBf16);
  AllowNativeBf16(true);
  // Sums in another order may round a BF16 activation to its neighbour; no more.
  for (size_t t = 0; t < ids.size(); ++t) EXPECT_NEAR(native[t], widened[t], 0.05);
}

}  // namespace
}  // namespace mica
