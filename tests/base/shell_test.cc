#include "base/shell.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace mica {
namespace {

// What a shell makes of the words behind printf.
std::string Echoed(const std::string& shell, const std::string& words) {
  const std::string script = "printf '%s|' " + words;
  std::string quoted;
  for (const char c : script) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  std::FILE* pipe = ::popen((shell + " -c '" + quoted + "'").c_str(), "r");
  std::string text;
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
  ::pclose(pipe);
  return text;
}

TEST(ShellTest, AShellReadsEveryWordBack) {
  EXPECT_EQ(ShellWord("models/demo"), "models/demo");
  EXPECT_EQ(ShellWord(""), "''");
  EXPECT_EQ(ShellWord("it's"), "'it'\\''s'");
  for (const std::string word : {"", " ", "a b", "x;touch y;", "$(id)", "`id`", "it's", "\"", "\\", "*", "~",
                                 "#", "!!", "a\\'b", "{a,b}", "<>|&", "(", "\u4e2d\u6587 \u2581", "-rf"}) {
    EXPECT_EQ(Echoed("sh", ShellWord(word)), word + "|") << word;
  }
  for (const std::string word : {"a\nb", "\x1b[31m", "it's\n", "\\n\n", "\u0085;id", "a\x7f'b\\"}) {
    const std::string quoted = ShellWord(word);
    EXPECT_EQ(Echoed("bash", quoted), word + "|") << quoted;
    for (const char c : quoted) EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F) << quoted;
    EXPECT_EQ(Echoed("sh", quoted).back(), '|') << "one word in any shell: " << quoted;
  }
}

TEST(ShellTest, OperandsAndValuesAreNoOptions) {
  ShellCommand command{{"mica", "eval"}};
  command.Operand("-model");
  command.Option("data", "text=a b");
  command.Option("dtype", "--force");
  command.Switch("json");
  EXPECT_EQ(command.Line(), "mica eval ./-model --data 'text=a b' --dtype=--force --json");
}

TEST(ShellTest, LongCommandsAreBrokenBetweenOptions) {
  const ShellCommand command{
      {"mica", "compress", "models/some", "out", "--bits", "4", "--calib", "text=a b", "--json"}};
  EXPECT_EQ(command.Lines(200), command.Line());
  EXPECT_EQ(command.Lines(33),
            "mica compress models/some out \\\n    --bits 4 --calib 'text=a b' \\\n    --json");
  EXPECT_EQ(
      command.Lines(1),
      "mica \\\n    compress \\\n    models/some \\\n    out \\\n    --bits 4 \\\n    --calib 'text=a b' "
      "\\\n    --json");
}

}  // namespace
}  // namespace mica
