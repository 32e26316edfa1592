// Where BOS goes follows from tokenizer and model type, unless another place is asked for.
#include "model/bos.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"
#include "tests/error_message.h"
#include "tests/io/text/fake_encoder.h"

namespace mica {
namespace {

using test::FakeTokenizer;

TEST(BosTest, TheDefaultIsThatOfTokenizerAndModelType) {
  const Tokenizer adds = FakeTokenizer(256, true), knows = FakeTokenizer(256, false),
                  none = FakeTokenizer(std::nullopt, false);
  for (const char* type : {"llama", "mistral", "qwen2", ""}) {
    EXPECT_EQ(DefaultBos(adds, type), BosPlace::kText) << type;
    EXPECT_EQ(DefaultBos(knows, type), BosPlace::kNone) << type;
    EXPECT_EQ(DefaultBos(none, type), BosPlace::kNone) << type;
  }
  for (const char* type : {"gemma", "gemma2", "gemma3_text"}) {
    EXPECT_EQ(DefaultBos(adds, type), BosPlace::kWindow) << type;
    EXPECT_EQ(DefaultBos(knows, type), BosPlace::kWindow) << type;
    EXPECT_EQ(DefaultBos(none, type), BosPlace::kNone) << type;
  }
}

TEST(BosTest, WhatIsAskedForGoesBeforeTheDefault) {
  const Tokenizer knows = FakeTokenizer(256, false), none = FakeTokenizer(std::nullopt, false);
  EXPECT_EQ(BosOf(std::nullopt, knows, "llama").before_text(), 0u);
  EXPECT_EQ(BosOf(BosPlace::kNone, knows, "gemma").id, -1);
  const Bos text = BosOf(BosPlace::kText, knows, "gemma");
  EXPECT_EQ(text.place, BosPlace::kText);
  EXPECT_EQ(text.id, 256);
  EXPECT_EQ(text.before_text(), 1u);
  EXPECT_EQ(BosOf(BosPlace::kNone, none, "llama").place, BosPlace::kNone);
  for (const auto& [place, name] : {std::pair(BosPlace::kText, "text"), {BosPlace::kWindow, "window"}})
    ExpectError([&, place = place] { BosOf(place, none, "llama"); },
                {std::string("--bos is ") + name, "no token that begins a text", "none"});
}

TEST(BosTest, NamesAreThoseOfTheOption) {
  for (const BosPlace place : {BosPlace::kText, BosPlace::kWindow, BosPlace::kNone})
    EXPECT_EQ(ParseBosPlace(BosPlaceName(place)), place);
  ExpectError([] { ParseBosPlace("front"); }, {"front", "text, window or none"});
}

TEST(BosTest, BeginsEachWindow) {
  std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6};
  Bos{BosPlace::kWindow, 9}.BeginWindows(ids, 3);
  EXPECT_EQ(ids, (std::vector<int32_t>{9, 2, 3, 9, 5, 6}));
}

}  // namespace
}  // namespace mica
