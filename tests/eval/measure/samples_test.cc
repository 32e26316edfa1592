#include "eval/measure/samples.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "io/text/datasets.h"
#include "tests/source_dir.h"

namespace mica {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const std::string kDemo = (SourceDir() / "models/demo").string();

SampleSettings Settings(const char* json) { return SampleSettingsFromJson(Json::parse(json), "e.json, \"samples\""); }

TEST(SampleSettings, AreCountTokensAndPrompts) {
  EXPECT_EQ(SampleSettings().count, 12u);
  EXPECT_EQ(Settings(R"({"tokens": 8})").count, 12u);
  EXPECT_EQ(Settings(R"({"tokens": 8})").tokens, 8u);
  EXPECT_FALSE(Settings(R"({"count": 0})").wanted());
  const SampleSettings given = Settings(R"({"prompts": ["a", "b"]})");
  EXPECT_TRUE(given.wanted());
  EXPECT_EQ(given.count, 0u);
  EXPECT_EQ(given.prompts, (std::vector<std::string>{"a", "b"}));
}

TEST(SampleSettings, RefuseWhatMeansNothing) {
  for (const auto& [json, expected] : {std::pair{"{}", "\"samples\": is empty"},
                                       {R"({"cuont": 1})", "did you mean \"count\""},
                                       {R"({"count": -1})", "\"count\" is -1, expected 0 to 100"},
                                       {R"({"count": 101})", "expected 0 to 100"},
                                       {R"({"tokens": 0})", "\"tokens\" is 0, expected 1 to 256"},
                                       {R"({"tokens": 1.5})", "\"tokens\" is 1.5"},
                                       {R"({"prompts": []})", "has 0 texts, expected 1 to 100"},
                                       {R"({"prompts": "a"})", "\"prompts\" is \"a\""},
                                       {R"({"prompts": [""]})", "\"prompts\" is"},
                                       {R"({"prompts": ["a"], "count": 3})", "disagree"},
                                       {"[]", "expected an object"}}) {
    EXPECT_THAT([&] { Settings(json); }, ThrowsMessage<Error>(HasSubstr(expected))) << json;
  }
}

TEST(CutPrompt, IsTextOfTheWindowsFromAWordOn) {
  const Tokenizer tokenizer = Tokenizer::Open(kDemo);
  const std::string text = LoadText(MakeDataSpec("text", SourceDir() / "README.zh-CN.md")).text +
                           LoadText(MakeDataSpec("text", SourceDir() / "CONTRIBUTING.md")).text;
  const Windows windows = CutWindows(tokenizer.Encode(text), {}, 64, Convention::kGptq, 0, "text");
  std::mt19937_64 random(5), again(5);
  size_t at_words = 0;
  for (int i = 0; i < 200; ++i) {
    const SamplePrompt prompt = CutPrompt("docs", windows, tokenizer, 2048, random);
    EXPECT_EQ(prompt.set, "docs");
    ASSERT_GE(prompt.ids.size(), 2u);
    EXPECT_LE(prompt.ids.size(), kCutTokens + 1);
    EXPECT_EQ(prompt.ids.front(), *tokenizer.text_bos());
    EXPECT_THAT(prompt.text, testing::Not(HasSubstr("\xEF\xBF\xBD")));  // no character is cut
    EXPECT_THAT(text, HasSubstr(prompt.text));
    at_words += prompt.text.starts_with(' ') || prompt.text.starts_with('\n') ? 1 : 0;
    EXPECT_EQ(CutPrompt("docs", windows, tokenizer, 2048, again).ids, prompt.ids);
  }
  EXPECT_GT(at_words, 90u);  // of the English half; Chinese has no blanks
}

TEST(CutPrompt, FitsIntoShortWindowsAndFewPositions) {
  const Tokenizer tokenizer = Tokenizer::Open(kDemo);
  const Windows windows = CutWindows(tokenizer.Encode("It is a short text that has few windows."), {}, 3, Convention::kGptq, 0, "text");
  std::mt19937_64 random(5);
  for (int i = 0; i < 20; ++i) {
    EXPECT_LE(CutPrompt("a", windows, tokenizer, 2048, random).ids.size(), 3u);
    EXPECT_EQ(CutPrompt("a", windows, tokenizer, 4, random).ids.size(), 2u);
  }
}

TEST(GivenPrompts, MustFitIntoThePositions) {
  const Tokenizer tokenizer = Tokenizer::Open(kDemo);
  SampleSettings settings = Settings(R"({"prompts": ["one", "two words more than one"], "tokens": 4})");
  const std::vector<SamplePrompt> prompts = GivenPrompts(settings, tokenizer, 64);
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].ids, PromptTokens(tokenizer, "one", false));
  EXPECT_EQ(prompts[0].text, "one");
  EXPECT_EQ(prompts[0].set, "");
  EXPECT_THAT([&] { GivenPrompts(settings, tokenizer, prompts[0].ids.size() + 4); },
              ThrowsMessage<Error>(HasSubstr("prompt 2 of the samples")));
}

Generated Of(const std::vector<std::pair<int32_t, std::string>>& tokens, Finish finish, const std::string& tail = "") {
  Generated generated;
  for (const auto& [id, text] : tokens) {
    generated.tokens.push_back({.id = id, .text = text, .log_probability = 0, .alternatives = {}});
    generated.text += text;
  }
  generated.text += tail;
  generated.finish = finish;
  return generated;
}

Matrix<float> Logits(const std::vector<std::vector<float>>& rows) {
  Matrix<float> logits(rows.size(), rows.empty() ? 3 : rows[0].size());
  for (size_t r = 0; r < rows.size(); ++r) std::ranges::copy(rows[r], logits.row(r));
  return logits;
}

TEST(CompareSamples, TellsWhereTheyPartAndHowFarTheyAreApart) {
  SampleTask task;
  task.tokens = 3;
  task.prompts = {{"a", {1}, "A"}, {"b", {1}, "B"}, {"", {1}, "C"}, {"a", {1}, "D"}};
  SampledModel original, compressed;
  original.texts = {Of({{5, " five"}, {6, " six"}, {7, ""}}, Finish::kLength, "?"), Of({{5, " five"}}, Finish::kEnd),
                    Of({{5, " five"}}, Finish::kEnd), Of({}, Finish::kEnd)};
  compressed.texts = {Of({{5, " five"}, {8, " eight"}, {7, "x"}}, Finish::kLength), Of({{5, " five"}, {9, " on"}}, Finish::kLength),
                      Of({{5, " five"}}, Finish::kEnd), Of({{4, " four"}}, Finish::kEnd)};
  // Behind the second token p = (1/2, 1/4, 1/4) against q = (1/4, 1/2, 1/4): KL = ln 2 / 4.
  const float two = std::log(2.0f);
  original.logits.push_back(Logits({{0, 0, 0}, {two, 0, 0}, {1, 2, 3}}));
  compressed.logits.push_back(Logits({{0, 0, 0}, {0, two, 0}, {1, 2, 3}}));
  for (const std::vector<std::vector<float>>& rows : {std::vector<std::vector<float>>{{0, 1, 0}}, {{0, 1, 0}}, {}}) {
    original.logits.push_back(Logits(rows));
    compressed.logits.push_back(Logits(rows));
  }
  original.cost.decode.mean = 3;
  original.timed.generated_tokens = 32;
  original.cost.weight_bytes = 100;
  compressed.peak_bytes = 77;
  const SamplesRecord record = CompareSamples(task, original, compressed);
  EXPECT_EQ(record.tokens, 3u);
  EXPECT_NEAR(*record.kl, std::log(2) / 4 / 5, 1e-6);
  ASSERT_EQ(record.texts.size(), 4u);
  const SampleRecord& one = record.texts[0];
  EXPECT_EQ(one.set, "a");
  EXPECT_EQ(one.prompt, "A");
  EXPECT_EQ(one.original, " five six?");
  EXPECT_EQ(one.lengths.values, (std::vector<uint64_t>{5, 4, 1}));  // the last one's text came with the end
  EXPECT_EQ(one.hundredths.values, (std::vector<uint64_t>{0, 17, 0}));
  EXPECT_EQ(one.parting, 1u);
  EXPECT_EQ(one.compressed, " eightx");
  EXPECT_FALSE(one.original_ended);
  EXPECT_EQ(record.texts[1].parting, 1u);  // where the original ends
  EXPECT_EQ(record.texts[1].compressed, " on");
  EXPECT_EQ(record.texts[1].original_ended, true);
  EXPECT_FALSE(record.texts[2].parting);
  EXPECT_FALSE(record.texts[2].compressed);
  EXPECT_FALSE(record.texts[2].set);
  EXPECT_EQ(record.texts[2].compressed_ended, true);
  EXPECT_EQ(record.texts[3].parting, 0u);
  EXPECT_EQ(record.texts[3].original, "");
  EXPECT_EQ(record.texts[3].compressed, " four");
  EXPECT_EQ(record.original->generated->tokens_per_second, 3);
  EXPECT_EQ(record.original->generated->tokens, 32u);
  EXPECT_EQ(record.original->weight_bytes, 100u);
  EXPECT_EQ(record.compressed->peak_memory_bytes, 77u);
}

TEST(WhyNoSamples, SaysWhatDoesNotFit) {
  const ModelWeights weights = ModelWeights::Open(kDemo);
  SampleTask task;
  task.tokens = 8;
  task.prompts = {{"a", {1}, "A"}};
  EXPECT_EQ(WhyNoSamples(weights, task, "original"), "");
  task.tokens = size_t{1} << 30;  // of 16,000 logits each
  EXPECT_THAT(WhyNoSamples(weights, task, "original"),
              testing::ContainsRegex("generating with the original model takes about .*, and .* are free"));
}

TEST(SampleModel, AModelIsAsItselfAndAsItGenerates) {
  const ModelWeights weights = ModelWeights::Open(kDemo);
  const Tokenizer tokenizer = Tokenizer::Open(kDemo);
  SampleTask task;
  task.tokens = 5;
  SampleSettings settings;
  settings.prompts = {"The files of a package", "Once"};
  settings.tokens = task.tokens;
  task.prompts = GivenPrompts(settings, tokenizer, weights.config().max_positions);
  uint64_t advanced = 0;
  const auto advance = [&](uint64_t tokens) { advanced += tokens; };
  const SampledModel original = SampleModel(weights, kDemo, tokenizer, task, nullptr, advance);
  EXPECT_EQ(advanced, 10u);
  SampledModel again = SampleModel(weights, kDemo, tokenizer, task, &original, advance);
  EXPECT_GT(original.cost.decode.mean, 0);
  EXPECT_GT(original.peak_bytes, original.cost.weight_bytes);
  for (size_t i = 0; i < 2; ++i) {
    ASSERT_EQ(original.texts[i].tokens.size(), 5u);
    ASSERT_EQ(original.logits[i].rows(), 5u);
    for (size_t t = 0; t < 5; ++t) {
      const float* row = original.logits[i].row(t);
      EXPECT_EQ(std::max_element(row, row + original.logits[i].cols()) - row, original.texts[i].tokens[t].id) << i << " " << t;
    }
  }
  const SamplesRecord record = CompareSamples(task, original, again);
  EXPECT_EQ(record.kl, 0.0);
  EXPECT_FALSE(record.texts[0].parting);
  EXPECT_FALSE(record.texts[1].parting);
}

}  // namespace
}  // namespace mica
