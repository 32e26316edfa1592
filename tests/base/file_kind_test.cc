// Files are named for what they are by their first bytes, and texts are not taken for anything else.
#include "base/file_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/json.h"
#include "tests/error_message.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using std::string_literals::operator""s;
using testing::AllOf;
using testing::HasSubstr;

std::string NameOf(const std::string& content) {
  const std::optional<FileKind> kind = RecogniseFile(content);
  return kind ? kind->name : "";
}

// ASCII text in units of `bytes`, the character in the first or the last byte of each.
std::string Wide(const std::string& text, size_t bytes, bool little) {
  std::string wide;
  for (const char c : text) {
    std::string unit(bytes, '\0');
    unit[little ? 0 : bytes - 1] = c;
    wide += unit;
  }
  return wide;
}

// UTF-16 of code points below 0x10000.
std::string Utf16(std::u16string_view text, bool little) {
  std::string wide;
  for (const char16_t unit : text) {
    const char low = static_cast<char>(unit & 0xFF), high = static_cast<char>(unit >> 8);
    wide += little ? low : high;
    wide += little ? high : low;
  }
  return wide;
}

TEST(FileKind, IsTold) {
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13476925163\n";
  const std::string safetensors = "\x40\0\0\0\0\0\0\0{\"a\": 1}"s;
  std::string tar(512, '\0');
  tar.replace(0, 5, "a.txt");
  tar.replace(257, 5, "ustar");
  const std::string rest(100, '\1');
  const std::pair<std::string, std::string> cases[] = {
      {"", "empty"},
      {std::string(64, '\0'), "zero bytes"},
      {pointer, "a Git LFS pointer (the file of 13.5 GB itself was not fetched)"},
      {"version https://hawser.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"},
      {"\x1f\x8b\x08"s + rest, "gzip"},
      {"\x28\xb5\x2f\xfd" + rest, "Zstandard"},
      {"\x53\x2a\x4d\x18\4\0\0\0abcd"s, "Zstandard"},
      {"\xfd"
       "7zXZ\0"s +
           rest,
       "xz"},
      {"BZh91AY&SY" + rest, "bzip2"},
      {"\x04\x22\x4d\x18" + rest, "LZ4"},
      {"PK\3\4" + rest, "a zip archive"},
      {"7z\xbc\xaf\x27\x1c" + rest, "7-Zip"},
      {"Rar!\x1a\7" + rest, "RAR"},
      {tar, "a tar archive"},
      {"PAR1\x15\4\x15" + rest, "Parquet"},
      {"ARROW1\0\0"s + rest, "Arrow"},
      {"\xff\xff\xff\xff\x80\x01\0\0\x10\0\0\0"s, "Arrow stream"},
      {"%PDF-1.4\n" + rest, "PDF"},
      {"\x89HDF\r\n\x1a\n" + rest, "HDF5"},
      {"\x93NUMPY" + rest, "NumPy"},
      {"GGUF\3\0\0\0"s + rest, "GGUF"},
      {"tjgg\3\0\0\0"s + rest, "GGML"},
      {"\x80\2}q\1" + rest, "pickle"},
      {safetensors, "a safetensors file"},
      {"<!DOCTYPE html><html><head>", "an HTML page"},
      {"\n <HTML>\n", "an HTML page"},
      {"\xef\xbb\xbf<?xml version=\"1.0\"?><Error>", "an XML document"},
      {"\xff\xfeh\0i\0"s, "UTF-16LE"},
      {"\xfe\xff\0h\0i"s, "UTF-16BE"},
      {"\xff\xfe\0\0h\0\0\0"s, "UTF-32LE"},
      {Wide("A house of words.\n", 2, true), "UTF-16LE"},
      {Wide("A house of words.\n", 2, false), "UTF-16BE"},
      {Wide("A house of words.\n", 4, true), "UTF-32LE"},
      {Wide("A house of words.\n", 4, false), "UTF-32BE"},
      {Utf16(u"\u6211\u662f\u4e00\u4e2a\u5b66\u751f\u3002\n\u4eca\u5929 2 \u70b9\u3002", true), "UTF-16LE"},
      {Utf16(u"\u6211\u662f\u4e00\u4e2a\u5b66\u751f\u3002\n\u4eca\u5929 2 \u70b9\u3002", false), "UTF-16BE"},
      {Utf16(u"\u0414\u043e\u043c \u0441\u043b\u043e\u0432\u002e", true), "UTF-16LE"},
      {"IQ== 0\nIg== 1\nIw== 2\nJA== 3\n", "tiktoken"},
      {"\n\x0e\n\5<unk>\x15\0\0\0\0\x18\2\n"s, "a SentencePiece model"},
      {"{\"a\": 1}", "a JSON file"},
      {" [1]", "a JSON file"},
  };
  for (const auto& [content, name] : cases) EXPECT_THAT(NameOf(content), HasSubstr(name)) << content;
}

TEST(FileKind, TextsAreNothingElse) {
  std::string long_line(5000, 'a');
  for (size_t i = 7; i < long_line.size(); i += 8) long_line[i] = ' ';
  for (const std::string& text :
       {"ORC and elf"s + long_line, "BZh is no word" + long_line, "PAR1 " + long_line,
        "GGUF is a format" + long_line, "ARROW1 " + long_line, "= Robert Boulter =\n"s,
        "\n \n = Robert Boulter = \n"s, "\n \n\tindented\n"s, "version 1 of the text"s,
        "PKs and other words"s, "Rarely"s, "caf\xc3\xa9"s, "caf\xe9 in Latin-1"s,
        "\xd6\xd0\xce\xc4\xb2\xe2\xca\xd4"s, "a\0b"s, "\u6211\u662f\u4e00\u4e2a\u5b66\u751f"s,
        "a 0\nb 1\nc 2\n"s, "<s> begins a text"s, "text that ends in zeros" + std::string(40, '\0')}) {
    EXPECT_EQ(NameOf(text), "") << text;
  }
}

TEST(FileKind, RefusalSaysWhatAndWhatToDo) {
  EXPECT_THAT(
      MessageOf([] { RefuseOtherKind("GGUF\3", "m.bin", kTorchFile); }),
      AllOf(HasSubstr("m.bin: is a GGUF file, expected a PyTorch checkpoint; "), HasSubstr("Hugging Face")));
  EXPECT_THAT(MessageOf([] { RefuseOtherKind("version https://git-lfs.github.com/spec/v1\n", "t", "x"); }),
              HasSubstr("run 'git lfs pull'"));
  EXPECT_THAT(MessageOf([] { RefuseOtherKind("h\0i\0 \0"s, "t", "x"); }),
              HasSubstr("iconv -f UTF-16LE -t UTF-8"));
  EXPECT_THAT(MessageOf([] { RefuseOtherKind("\xff\xfeh\0"s, "t", "x"); }),
              HasSubstr("iconv -f UTF-16 -t UTF-8"));
  EXPECT_EQ(MessageOf([] { RefuseOtherKind("{}", "m.json", kJsonFile); }), "");
  EXPECT_EQ(MessageOf([] { RefuseOtherKind("words", "m.json", kJsonFile); }), "");
}

TEST(FileKind, JsonThatIsSomethingElse) {
  EXPECT_THAT(
      MessageOf([] { ParseJson("version https://git-lfs.github.com/spec/v1\nsize 5\n", "config.json"); }),
      AllOf(HasSubstr("config.json: is a Git LFS pointer"), HasSubstr("expected a JSON file")));
  EXPECT_THAT(MessageOf([] { ParseJson("<html>", "config.json"); }), HasSubstr("is an HTML page"));
  EXPECT_THAT(MessageOf([] { ParseJson("", "config.json"); }), HasSubstr("is empty"));
  EXPECT_THAT(MessageOf([] { ParseJson(Wide("{\"a\": 1}", 2, true), "config.json"); }),
              HasSubstr("UTF-16LE"));
  EXPECT_THAT(MessageOf([] { ParseJson("{\"a\":", "config.json"); }), HasSubstr("not valid JSON"));
}

TEST(FileKind, LinksThatLeadNowhere) {
  const TemporaryDirectory directory;
  fs::create_symlink("../../blobs/4d7a", directory / "link");
  EXPECT_TRUE(IsPresent(directory / "link"));
  EXPECT_FALSE(IsPresent(directory / "absent"));
  EXPECT_THAT(CannotOpen(directory / "link", ENOENT),
              AllOf(HasSubstr("link: is a link to ../../blobs/4d7a, which does not exist")));
  EXPECT_THAT(CannotOpen(directory / "absent", ENOENT), HasSubstr("No such file"));
}

}  // namespace
}  // namespace mica
