#include "eval/measure/lost_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/file.h"
#include "io/container/safetensors.h"
#include "tests/source_dir.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

Windows SomeWindows(size_t count, size_t window, size_t first_scored) {
  Windows windows;
  windows.window = window;
  windows.first_scored = first_scored;
  for (size_t i = 0; i < count * window; ++i) windows.ids.push_back(static_cast<int32_t>(100 + i % 500));
  return windows;
}

TEST(LostTokens, AreThoseOfASortedList) {
  const Windows windows = SomeWindows(7, 40, 21);
  const size_t scored = windows.scored_per_window();
  std::mt19937 random(3);
  std::vector<float> original, compressed;
  std::vector<std::pair<float, size_t>> expected;  // minus the loss, place
  for (size_t i = 0; i < 7 * scored; ++i) {
    original.push_back(static_cast<float>(random() % 8));
    compressed.push_back(static_cast<float>(random() % 8));  // many equal losses
    if (compressed[i] > original[i]) expected.emplace_back(original[i] - compressed[i], i);
  }
  std::ranges::sort(expected);
  for (const size_t most : {size_t{0}, size_t{1}, size_t{10}, expected.size(), expected.size() + 5}) {
    const std::vector<LostToken> found = LostTokens(windows, original, compressed, most);
    ASSERT_EQ(found.size(), std::min(most, expected.size()));
    for (size_t i = 0; i < found.size(); ++i) {
      const size_t place = expected[i].second;
      EXPECT_EQ(found[i].window, place / scored);
      EXPECT_EQ(found[i].place, 21 + place % scored);
      EXPECT_EQ(found[i].original, original[place]);
      EXPECT_EQ(found[i].compressed, compressed[place]);
    }
  }
}

TEST(LostTokens, WhatIsNoNumberIsNoLoss) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
  const std::vector<LostToken> found =
      LostTokens(SomeWindows(1, 6, 1), std::vector<float>{1, 1, nan, 2, 5}, std::vector<float>{nan, infinite, 2, 4, 5}, 10);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].place, 4u);
}

TEST(LostTokens, AreShownWithTheTextBeforeThemInTheirWindow) {
  const Tokenizer tokenizer = Tokenizer::Open(SourceDir() / "models/demo/tokenizer.model");
  const std::vector<int32_t> ids = tokenizer.Encode(
      "The first window is here, and it goes on for a while. The second window has other words, which are as many as those.");
  Windows windows;
  windows.window = ids.size() / 2;
  windows.first_scored = 1;
  windows.ids.assign(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(2 * windows.window));
  const size_t scored = windows.scored_per_window();
  ASSERT_GT(scored, kLostContext);
  std::vector<float> original(2 * scored, 1.0f), compressed = original;
  compressed[scored + 1] = 3.00049f;  // the second window's third token: two before it
  compressed[scored - 1] = 9.0f;      // the first window's last
  const std::vector<LostTokenRecord> records = LostTokenRecords(windows, tokenizer, original, compressed);
  ASSERT_EQ(records.size(), 2u);
  EXPECT_EQ(records[0].compressed, 9.0);
  EXPECT_EQ(records[1].compressed, 3.0);
  const auto text = [&](size_t first, size_t count) {
    const auto begin = windows.ids.begin() + static_cast<ptrdiff_t>(first);
    return tokenizer.Decode({begin, begin + static_cast<ptrdiff_t>(count)});
  };
  const size_t last = windows.window - 1;
  // Decode leaves out the blank in front of the first word.
  EXPECT_THAT(*records[0].context + *records[0].token, testing::EndsWith(text(last - kLostContext, kLostContext + 1)));
  EXPECT_LE((*records[0].context + *records[0].token).size(), text(last - kLostContext, kLostContext + 1).size() + 1);
  EXPECT_THAT(*records[1].context + *records[1].token, testing::EndsWith(text(windows.window, 3)));
  EXPECT_LE((*records[1].context + *records[1].token).size(), text(windows.window, 3).size() + 1);
}

TEST(TokenLossesFile, ComesBackAndKnowsItsResult) {
  const TemporaryDirectory directory;
  const TokenLosses losses = {{"c4", {1.5f, 2.5f, 0.25f}}, {"a-b.c", {3.0f}}};
  WriteTokenLosses(directory / "x.losses", losses);
  TokenLosses read = ReadTokenLosses(directory / "x.losses");
  EXPECT_EQ(read, losses);
  EvaluationRecord record;
  record.sets.resize(2);
  record.sets[0].first = "a-b.c";
  record.sets[0].second.nll = 3.0;
  record.sets[0].second.scored_tokens = 1;
  record.sets[1].first = "c4";
  record.sets[1].second.nll = 4.25 / 3;
  record.sets[1].second.scored_tokens = 3;
  EXPECT_TRUE(AreOf(read, record));
  record.sets[1].second.nll = 4.2 / 3;
  EXPECT_FALSE(AreOf(read, record));
  record.sets[1].second.nll = 4.25 / 3;
  record.sets[1].second.scored_tokens = 4;
  EXPECT_FALSE(AreOf(read, record));
  record.sets[1].second.scored_tokens = 3;
  record.sets[1].first = "ptb";
  EXPECT_FALSE(AreOf(read, record));
}

TEST(TokenLossesFile, RefusesWhatItIsNot) {
  const TemporaryDirectory directory;
  EXPECT_THROW(ReadTokenLosses(directory / "none"), Error);
  SafetensorsWriter writer(directory / "other", {{"a", DType::kF16, {1}}});
  writer.Write(std::as_bytes(std::span("ab", 2)));
  writer.Commit();
  EXPECT_THAT([&] { ReadTokenLosses(directory / "other"); }, testing::ThrowsMessage<Error>(testing::HasSubstr("expected losses of tokens")));
  WriteFileAtomically(directory / "text", "text");
  EXPECT_THROW(ReadTokenLosses(directory / "text"), Error);
}

}  // namespace
}  // namespace mica
