#include "base/text.h"

#include <gtest/gtest.h>

#include <string>

#include "base/json.h"

namespace mica {
namespace {

TEST(TextTest, WhatActsOnATerminalIsShownAsItsBytes) {
  EXPECT_EQ(Printable("plain, 困惑度 ★ é"), "plain, 困惑度 ★ é");
  EXPECT_EQ(Printable("\x1b]0;owned\x07"), "\\x1b]0;owned\\x07");
  EXPECT_EQ(Printable("a\nb\tc\rd\x7f"), "a\\x0ab\\x09c\\x0dd\\x7f");
  EXPECT_EQ(Printable("\u009b31m"), "\\xc2\\x9b31m");               // C1: CSI
  EXPECT_EQ(Printable("\u202egnp.exe"), "\\xe2\\x80\\xaegnp.exe");  // right to left
  EXPECT_EQ(Printable("\u2066x\u2069"), "\\xe2\\x81\\xa6x\\xe2\\x81\\xa9");
  EXPECT_EQ(Printable("\u2028"), "\\xe2\\x80\\xa8");
  EXPECT_EQ(Printable("caf\xe9 \xff"), "caf\\xe9 \\xff");
  EXPECT_EQ(Printable("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(Printable(std::string("a\0b", 3)), "a\\x00b");
}

TEST(TextTest, ShowingTwiceIsShowingOnce) {
  const std::string once = Printable("\x1b[2J \xff \u202e \\");
  EXPECT_EQ(Printable(once), once);
}

TEST(TextTest, LongTextEnds) { EXPECT_EQ(Printable("abcdef", 3), "abc..."); }

TEST(TextTest, LinesStayLines) {
  EXPECT_EQ(PrintableLines("a\x1b\nb\n"), "a\\x1b\nb\n");
  EXPECT_EQ(PrintableLines("no end"), "no end");
  EXPECT_EQ(PrintableLines(std::string(1000, 'x')), std::string(1000, 'x'));
}

TEST(TextTest, JsonKeepsItsValues) {
  const Json json = {{"a\x7f\u009b", "\u202e\u2028 \x1b é"}};
  const std::string text = JsonText(json);
  EXPECT_EQ(text, "{\n  \"a\\u007f\\u009b\": \"\\u202e\\u2028 \\u001b é\"\n}\n");
  EXPECT_EQ(ParseJson(text, "test"), json);
  EXPECT_EQ(JsonText(Json("\xff")), "\"\xef\xbf\xbd\"\n");  // no UTF-8: replaced, and valid
}

TEST(TextTest, Labels) {
  for (const char* good : {"wikitext2", "a", "developers-reference", "v1.2_x"})
    EXPECT_TRUE(IsLabel(good)) << good;
  for (const char* bad : {"", "a b", "\x1b", "a/b", "é", "a\n"}) EXPECT_FALSE(IsLabel(bad)) << bad;
}

}  // namespace
}  // namespace mica
