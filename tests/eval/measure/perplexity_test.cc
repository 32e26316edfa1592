#include "eval/measure/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "device/precision.h"
#include "tests/model/reference_forward.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

constexpr Bos kBos = {BosPlace::kText, 1};

// 2, 3, 4, ...: ids that show where they came from.
std::vector<int32_t> Counting(size_t count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 2);
  return ids;
}

Windows Cut(size_t text_tokens, size_t window, Convention convention, size_t max_windows = 0,
            const Bos& bos = kBos) {
  return CutWindows(Counting(text_tokens), bos, window, convention, max_windows, "text.txt");
}

TEST(CutWindowsTest, GptqScoresWholeWindowsAndDropsTheTail) {
  const Windows windows = Cut(12, 4, Convention::kGptq);  // 13 tokens with BOS: three windows, one token over
  EXPECT_EQ(windows.ids, (std::vector<int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
  EXPECT_EQ(windows.count(), 3u);
  EXPECT_EQ(windows.text_tokens, 13u);
  EXPECT_EQ(windows.scored_per_window(), 3u);
  EXPECT_EQ(windows.Target(0, 0), 2);
  EXPECT_EQ(windows.Target(0, 2), 4);
  EXPECT_EQ(windows.Target(0, 3), -1) << "the last token of a window predicts nothing";
  EXPECT_EQ(windows.Target(1, 0), 6) << "the first token of a later window is seen, not predicted";
}

TEST(CutWindowsTest, LlamacppBeginsEachWindowWithBosAndScoresSecondHalves) {
  const Windows windows = Cut(17, 6, Convention::kLlamacpp);
  EXPECT_EQ(windows.ids,
            (std::vector<int32_t>{1, 2, 3, 4, 5, 6, 1, 8, 9, 10, 11, 12, 1, 14, 15, 16, 17, 18}));
  EXPECT_EQ(windows.scored_per_window(), 2u);  // 6 - 1 - 6 / 2
  EXPECT_EQ(windows.Target(1, 2), -1);
  EXPECT_EQ(windows.Target(1, 3), 11);
  EXPECT_EQ(windows.Target(1, 4), 12);
  EXPECT_EQ(windows.Target(1, 5), -1);
}

TEST(CutWindowsTest, BosInEachWindowTakesThePlaceOfATokenThatIsNotScored) {
  const Bos in_windows = {BosPlace::kWindow, 1};
  const Windows windows = Cut(12, 4, Convention::kGptq, 0, in_windows);
  EXPECT_EQ(windows.ids, (std::vector<int32_t>{1, 2, 3, 4, 1, 6, 7, 8, 1, 10, 11, 12}));
  EXPECT_EQ(windows.text_tokens, 13u);
  const Windows once = Cut(12, 4, Convention::kGptq);
  for (size_t w = 0; w < windows.count(); ++w) {
    for (size_t t = 0; t < windows.window; ++t) EXPECT_EQ(windows.Target(w, t), once.Target(w, t)) << w << t;
  }
  EXPECT_EQ(Cut(17, 6, Convention::kLlamacpp, 0, in_windows).ids, Cut(17, 6, Convention::kLlamacpp).ids);
}

TEST(CutWindowsTest, WithoutBosATextIsCutAsItIs) {
  const Windows windows = Cut(13, 4, Convention::kGptq, 0, {});
  EXPECT_EQ(windows.ids, (std::vector<int32_t>{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}));
  EXPECT_EQ(windows.text_tokens, 13u);
  EXPECT_EQ(windows.Target(0, 0), 3);
  EXPECT_EQ(Cut(12, 6, Convention::kLlamacpp, 0, {}).ids,
            (std::vector<int32_t>{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}));
  EXPECT_THAT([] { Cut(3, 4, Convention::kGptq, 0, {}); },
              ThrowsMessage<Error>(HasSubstr("text.txt: has 3 tokens, fewer than one window of 4")));
}

TEST(CutWindowsTest, LlamacppHasBosInEachWindowWhereThereIsOne) {
  EXPECT_EQ(PlaceIn(Convention::kLlamacpp, BosPlace::kText), BosPlace::kWindow);
  EXPECT_EQ(PlaceIn(Convention::kLlamacpp, BosPlace::kWindow), BosPlace::kWindow);
  EXPECT_EQ(PlaceIn(Convention::kLlamacpp, BosPlace::kNone), BosPlace::kNone);
  for (const BosPlace place : {BosPlace::kText, BosPlace::kWindow, BosPlace::kNone})
    EXPECT_EQ(PlaceIn(Convention::kGptq, place), place);
}

TEST(CutWindowsTest, AnExactFitLosesNothingAndMaxWindowsCaps) {
  EXPECT_EQ(Cut(11, 4, Convention::kGptq).count(), 3u);
  EXPECT_EQ(Cut(10, 4, Convention::kGptq).count(), 2u);
  EXPECT_EQ(Cut(11, 4, Convention::kGptq, 2).count(), 2u);
  EXPECT_EQ(Cut(11, 4, Convention::kGptq, 9).count(), 3u);
}

TEST(CutWindowsTest, RefusesWhatCannotBeScored) {
  EXPECT_THAT(
      [] { Cut(2, 4, Convention::kGptq); },
      ThrowsMessage<Error>(HasSubstr("text.txt: has 3 tokens (BOS included), fewer than one window of 4")));
  EXPECT_THAT([] { Cut(0, 4, Convention::kGptq); }, ThrowsMessage<Error>(HasSubstr("has 1 tokens")));
  EXPECT_THAT([] { Cut(9, 1, Convention::kGptq); }, ThrowsMessage<Error>(HasSubstr("use at least 2")));
  EXPECT_THAT([] { Cut(9, 2, Convention::kLlamacpp); }, ThrowsMessage<Error>(HasSubstr("use at least 3")));
}

Windows RandomWindows(size_t count, size_t window, size_t vocab, Convention convention = Convention::kGptq) {
  return CutWindows(RandomIds(count * window - 1, vocab, 5), kBos, window, convention, 0, "random");
}

TEST(PerplexityTest, UniformModelHasPerplexityOfItsVocabulary) {
  const Json json = TinyConfig();
  Tensors tensors = RandomTensors(ParseConfig(json, "test"), 3);
  for (float& value : tensors.at("lm_head.weight").second) value = 0;  // every token equally likely
  TemporaryDirectory directory;
  WriteModel(directory.path(), json, tensors);
  const ModelWeights weights = ModelWeights::Open(directory.path());
  for (const Convention convention : {Convention::kGptq, Convention::kLlamacpp}) {
    const Perplexity result = EvaluatePerplexity(weights, RandomWindows(3, 16, 50, convention), {});
    EXPECT_NEAR(result.perplexity, 50.0, 50 * 1e-6) << ConventionName(convention);
    EXPECT_EQ(result.window_nll.size(), 3u);
  }
}

// Mean NLL of each window straight from the definition, in double precision.
std::vector<double> DirectNll(const TinyModel& model, const Windows& windows) {
  const reference::Model reference(model.weights().checkpoint(), model.config());
  std::vector<double> means;
  for (size_t w = 0; w < windows.count(); ++w) {
    const std::vector<int32_t> ids(windows.ids.begin() + static_cast<ptrdiff_t>(w * windows.window),
                                   windows.ids.begin() + static_cast<ptrdiff_t>((w + 1) * windows.window));
    std::vector<int32_t> targets(ids.begin() + 1, ids.end());
    targets.push_back(-1);
    const std::vector<double> nll = reference.Nll(ids, targets);
    means.push_back(
        std::accumulate(nll.begin() + static_cast<ptrdiff_t>(windows.first_scored) - 1, nll.end() - 1, 0.0) /
        static_cast<double>(windows.window - windows.first_scored));
  }
  return means;
}

TEST(PerplexityTest, AgreesWithDoublePrecisionFromTheDefinition) {
  const TinyModel model(TinyConfig(), 11);
  for (const Convention convention : {Convention::kGptq, Convention::kLlamacpp}) {
    const Windows windows = RandomWindows(4, 17, 50, convention);
    const std::vector<double> expected = DirectNll(model, windows);
    const Perplexity result = EvaluatePerplexity(model.weights(), windows, {});
    ASSERT_EQ(result.window_nll.size(), expected.size());
    double sum = 0;
    for (size_t w = 0; w < expected.size(); ++w) {
      EXPECT_NEAR(result.window_nll[w], expected[w], 1e-5) << ConventionName(convention) << " window " << w;
      sum += expected[w];
    }
    EXPECT_NEAR(result.perplexity, std::exp(sum / 4), 1e-4 * std::exp(sum / 4));
  }
}

TEST(DivergenceTest, AgreesWithDoublePrecisionFromTheDefinition) {
  Json wider = TinyConfig();
  wider["hidden_size"] = 32;  // only the vocabularies must be alike
  const TinyModel model(TinyConfig(), 21), original(wider, 22);
  const reference::Model q_model(model.weights().checkpoint(), model.config());
  const reference::Model p_model(original.weights().checkpoint(), original.config());
  for (const Convention convention : {Convention::kGptq, Convention::kLlamacpp}) {
    const Windows windows = RandomWindows(5, 17, 50, convention);
    double sum = 0, same = 0;
    for (size_t w = 0; w < windows.count(); ++w) {
      const auto begin = windows.ids.begin() + static_cast<ptrdiff_t>(w * windows.window);
      const std::vector<int32_t> ids(begin, begin + static_cast<ptrdiff_t>(windows.window));
      const reference::Rows p = p_model.Logits(ids), q = q_model.Logits(ids);
      for (size_t t = windows.first_scored - 1; t + 1 < windows.window; ++t) {
        double p_all = 0, q_all = 0;
        for (size_t v = 0; v < 50; ++v) p_all += std::exp(p[t][v]), q_all += std::exp(q[t][v]);
        for (size_t v = 0; v < 50; ++v) {
          const double probability = std::exp(p[t][v]) / p_all;
          sum += probability * std::log(probability / (std::exp(q[t][v]) / q_all));
        }
        same += std::max_element(p[t].begin(), p[t].end()) - p[t].begin() ==
                std::max_element(q[t].begin(), q[t].end()) - q[t].begin();
      }
    }
    const auto tokens = static_cast<double>(windows.count() * windows.scored_per_window());
    // In chunks of two windows.
    const Perplexity result = EvaluatePerplexity(
        model.weights(), windows, {Precision::kFp32, 2 * 17 * 24 * 4}, {}, &original.weights());
    EXPECT_NEAR(result.kl, sum / tokens, 1e-4 * sum / tokens) << ConventionName(convention);
    EXPECT_NEAR(result.same_top, same / tokens, 1e-12);
    EXPECT_EQ(result.window_kl.size(), 5u);
    EXPECT_EQ(result.window_nll, EvaluatePerplexity(model.weights(), windows, {}).window_nll);
  }
}

TEST(DivergenceTest, OfAModelFromItselfIsNothing) {
  const TinyModel model(TinyConfig(), 23);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const Perplexity result =
        EvaluatePerplexity(model.weights(), RandomWindows(3, 16, 50), {precision, {}}, {}, &model.weights());
    EXPECT_NEAR(result.kl, 0, 1e-6);
    EXPECT_EQ(result.same_top, 1);
  }
}

TEST(DivergenceTest, ReportsEveryTokenOnce) {
  const TinyModel model(TinyConfig(), 24);
  uint64_t tokens = 0;
  EvaluatePerplexity(
      model.weights(), RandomWindows(5, 16, 50), {Precision::kFp32, 2 * 16 * 24 * sizeof(float)},
      [&](uint64_t done, const std::string&) { tokens += done; }, &model.weights());
  EXPECT_EQ(tokens, 80u);
}

TEST(DivergenceTest, RefusesAnotherVocabulary) {
  Json json = TinyConfig();
  json["vocab_size"] = 51;
  const TinyModel model(TinyConfig()), other(json);
  EXPECT_THAT([&] { EvaluatePerplexity(model.weights(), RandomWindows(1, 8, 50), {}, {}, &other.weights()); },
              ThrowsMessage<Error>(HasSubstr("vocabulary of 51 tokens and the model one of 50")));
}

TEST(PerplexityTest, ChunksAndThreadsDoNotChangeTheResult) {
  const TinyModel model(TinyConfig(), 12);
  const size_t hidden = model.config().hidden;
  const Windows windows = RandomWindows(7, 37, 50);
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    SetThreads(1);
    PerplexitySettings settings{precision, uint64_t{1} << 30};
    const Perplexity whole = EvaluatePerplexity(model.weights(), windows, settings);
    SetThreads(2);
    for (const size_t chunk : {0, 2, 3}) {
      settings.activation_bytes =
          chunk * 37 * hidden * sizeof(float);  // 0: less than a window, so one at a time
      EXPECT_EQ(EvaluatePerplexity(model.weights(), windows, settings).window_nll, whole.window_nll)
          << PrecisionName(precision) << ", chunks of " << chunk;
    }
    SetThreads(0);
  }
}

TEST(PerplexityTest, ReportsEveryTokenOnce) {
  const TinyModel model(TinyConfig());
  const Windows windows = RandomWindows(5, 16, 50);
  uint64_t tokens = 0;
  size_t calls = 0;
  EvaluatePerplexity(model.weights(), windows, {Precision::kFp32, 2 * 16 * 24 * sizeof(float)},
                     [&](uint64_t more, const std::string&) {
                       tokens += more;
                       ++calls;
                     });
  EXPECT_EQ(tokens, 80u);
  EXPECT_EQ(calls, 3u * (2 + 1));  // three chunks, two layers and the head each
}

TEST(PerplexityTest, RefusesIdsBeyondTheVocabulary) {
  const TinyModel model(TinyConfig());
  Windows windows = RandomWindows(1, 8, 50);
  windows.ids[3] = 50;
  EXPECT_THAT([&] { EvaluatePerplexity(model.weights(), windows, {}); },
              ThrowsMessage<Error>(HasSubstr("token id 50, but the model's vocabulary has 50 entries")));
}

TEST(PerplexityTest, ALikelihoodThatIsNotFiniteIsAnError) {
  const Json json = TinyConfig();
  Tensors tensors = RandomTensors(ParseConfig(json, "test"), 3);
  for (float& value : tensors.at("model.layers.1.mlp.down_proj.weight").second)
    value = 1e38f;  // sums overflow to infinity
  TemporaryDirectory directory;
  WriteModel(directory.path(), json, tensors);
  const ModelWeights weights = ModelWeights::Open(directory.path());
  EXPECT_THAT([&] { EvaluatePerplexity(weights, RandomWindows(2, 8, 50), {}); },
              ThrowsMessage<Error>(HasSubstr("is not finite")));
}

TEST(PlanEvaluationTest, CountsOneLayerAndTheChunk) {
  const ModelConfig config = ParseConfig(TinyConfig(), "test");
  const uint64_t layer = 24 * 24 + 2 * 12 * 24 + 24 * 24 + 3 * 40 * 24;  // q, k and v, o, mlp
  const uint64_t largest = 40 * 24, head = 50 * 24, window = 16;
  const uint64_t step = 10 * window * (4 * 24 + 2 * 40);
  EXPECT_EQ(PlanEvaluation(config, window, 10, {Precision::kFp32, 0}).total(),
            4 * (layer + largest + step + head + window * 24));
  EXPECT_EQ(PlanEvaluation(config, window, 10, {Precision::kFp32, uint64_t{1} << 30}).total(),
            4 * (layer + largest + step + head + 10 * window * 24));
}

}  // namespace
}  // namespace mica
