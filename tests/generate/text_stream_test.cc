#include "generate/text_stream.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/text.h"
#include "io/text/tokenizer.h"
#include "tests/source_dir.h"

namespace mica {
namespace {

std::string Streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& before,
                     const std::vector<int32_t>& ids) {
  TokenText text(tokenizer, before);
  std::string all;
  for (const int32_t id : ids) {
    const std::string piece = text.Add(id);
    EXPECT_EQ(FirstInvalidUtf8(piece), std::string::npos);
    all += piece;
  }
  return all + text.Finish();
}

TEST(TextStream, EqualsWhatAllTokensDecodeToTogether) {
  const Tokenizer tokenizer = Tokenizer::Open(SourceDir() / "models" / "demo");
  for (const char* text :
       {"The city of Łódź, 東京 and  two blanks.\n\n\tA tab; an emoji 👩‍🚀 with a joiner.", "x", "ééé ñ 中文字 😀😀"}) {
    const std::vector<int32_t> ids = tokenizer.Encode(text);
    for (size_t split = 0; split <= ids.size(); ++split) {
      const std::vector<int32_t> before(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(split)),
          after(ids.begin() + static_cast<ptrdiff_t>(split), ids.end());
      const std::string whole = tokenizer.Decode(ids), front = tokenizer.Decode(before);
      if (front.ends_with("\xEF\xBF\xBD")) continue;  // within a character
      EXPECT_EQ(front + Streamed(tokenizer, before, after), whole) << text << " at " << split;
    }
  }
}

TEST(TextStream, HalfACharacterWaitsAndBecomesAReplacementAtTheEnd) {
  const Tokenizer tokenizer = Tokenizer::Open(SourceDir() / "models" / "demo");
  const std::vector<int32_t> before = tokenizer.Encode("a");
  std::vector<int32_t> ids = tokenizer.Encode("a😀");
  ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(before.size()));
  ASSERT_EQ(ids.size(), 4u);  // bytes
  TokenText text(tokenizer, before);
  EXPECT_EQ(text.Add(ids[0]), "");
  EXPECT_EQ(text.Add(ids[1]), "");
  EXPECT_EQ(FirstInvalidUtf8(text.Finish()), std::string::npos);
}

TEST(StopStrings, AreFoundOverSeveralPiecesAndNotShown) {
  StopStrings stops({"END", "</s>"});
  EXPECT_EQ(stops.Add("one E"), "one ");
  EXPECT_EQ(stops.Add("N"), "");
  EXPECT_FALSE(stops.found());
  EXPECT_EQ(stops.Add("D two"), "");
  EXPECT_TRUE(stops.found());
  EXPECT_EQ(stops.Finish(), "");
}

TEST(StopStrings, WhatOnlyBeganAsOneIsShown) {
  StopStrings stops({"END"});
  EXPECT_EQ(stops.Add("E"), "");
  EXPECT_EQ(stops.Add("NE"), "EN");
  EXPECT_EQ(stops.Add("Nx"), "ENx");
  EXPECT_EQ(stops.Add("EN"), "");
  EXPECT_EQ(stops.Finish(), "EN");
  EXPECT_FALSE(stops.found());
}

}  // namespace
}  // namespace mica
