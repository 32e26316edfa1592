#include "base/output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "tests/error_message.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

TEST(OutputTest, CheckingLeavesNothingBehindAndWhatIsThereAlone) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "result.json";
  CheckOutput(path);
  EXPECT_TRUE(fs::is_empty(directory.path()));
  WriteOutput(path, "first");
  CheckOutput(path);
  EXPECT_EQ(ReadFile(path), "first");
  WriteOutput(path, "second");
  EXPECT_EQ(ReadFile(path), "second");
  EXPECT_EQ(std::distance(fs::directory_iterator(directory.path()), {}), 1);
}

TEST(OutputTest, RefusesDirectoriesAndMissingParents) {
  const TemporaryDirectory directory;
  EXPECT_THAT([&] { CheckOutput(directory.path()); }, ThrowsMessage<Error>(HasSubstr("is a directory")));
  EXPECT_THAT([&] { CheckOutput(directory.path() / "new" / ""); },
              ThrowsMessage<Error>(HasSubstr("names a directory")));
  EXPECT_THAT([&] { CheckOutput(directory.path() / "absent" / "result.json"); },
              ThrowsMessage<Error>(HasSubstr("absent/result.json: cannot be written")));
}

TEST(OutputTest, DevicesAreWrittenInPlaceNotReplaced) {
  CheckOutput("/dev/null");
  WriteOutput("/dev/null", "text");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  EXPECT_THAT([] { WriteOutput("/dev/full", "text"); },
              ThrowsMessage<Error>(HasSubstr("No space left on device")));
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

// What CheckFiles says of these, "" when it has nothing to say.
std::string Refusal(const CommandFiles& files) {
  return MessageOf([&] { CheckFiles(files); });
}

class CheckFilesTest : public ::testing::Test {
 protected:
  CheckFilesTest() {
    MakeDirectories(model_);
    MakeDirectories(scratch_ / "store");
    WriteFileAtomically(model_ / "config.json", "{}");
    WriteFileAtomically(scratch_ / "store/weights", "w");
    fs::create_symlink("../store/weights", model_ / "model.safetensors");
    WriteFileAtomically(text_, "t");
    fs::create_directory_symlink("model", scratch_ / "link_to_model");
    fs::create_symlink("text", scratch_ / "link_to_text");
    fs::create_hard_link(text_, scratch_ / "hard_text");
    fs::create_hard_link(model_ / "config.json", scratch_ / "hard_config");
  }
  const TemporaryDirectory scratch_;
  const fs::path model_ = scratch_ / "model", text_ = scratch_ / "text";
};

TEST_F(CheckFilesTest, OutputsThatAreInputsByWhateverName) {
  const std::vector<fs::path> inputs = {model_, text_};
  for (const char* name : {"text", "link_to_text", "hard_text", "model/../text"}) {
    EXPECT_THAT(Refusal({.inputs = inputs, .outputs = {scratch_ / name}}), HasSubstr("is also an input"))
        << name;
  }
  for (const char* name : {"model/config.json", "hard_config", "link_to_model/config.json",
                           "model/model.safetensors", "store/weights"}) {
    EXPECT_THAT(Refusal({.inputs = inputs, .outputs = {scratch_ / name}}),
                HasSubstr("is a file of the directory"))
        << name;
  }
  EXPECT_THAT(Refusal({.inputs = inputs, .outputs = {model_ / "new"}}), HasSubstr("lies in the directory"));
  EXPECT_EQ(Refusal({.inputs = inputs, .outputs = {scratch_ / "new", "", "/dev/null"}}), "");
  EXPECT_EQ(Refusal({.inputs = {scratch_ / "absent", ""}, .outputs = {scratch_ / "new"}}), "");
  const auto json = [](const fs::path& path) { return path.filename() == "new.json"; };
  EXPECT_EQ(Refusal({.inputs = inputs, .outputs = {model_ / "new.json"}, .harmless = json}), "");
  EXPECT_NE(Refusal({.inputs = inputs, .outputs = {model_ / "config.json"}, .harmless = json}), "");
}

TEST_F(CheckFilesTest, OutputsThatMeet) {
  EXPECT_THAT(Refusal({.outputs = {scratch_ / "a", scratch_ / "model/../a"}}), HasSubstr("two outputs"));
  EXPECT_THAT(Refusal({.outputs = {text_, scratch_ / "hard_text"}}), HasSubstr("two outputs"));
  EXPECT_THAT(Refusal({.outputs = {scratch_ / "out/statistics"}, .directories = {scratch_ / "out"}}),
              HasSubstr("lies in the directory"));
}

TEST_F(CheckFilesTest, DirectoriesThatAreInputs) {
  for (const char* name : {"model", "link_to_model", "model/", "model/."}) {
    EXPECT_THAT(Refusal({.inputs = {model_}, .directories = {scratch_ / name}}), HasSubstr("is the same as"))
        << name;
  }
  for (const char* name : {"model/out", "link_to_model/deep/out"}) {
    EXPECT_THAT(Refusal({.inputs = {model_}, .directories = {scratch_ / name}}),
                HasSubstr("lies in the directory"))
        << name;
  }
  EXPECT_EQ(Refusal({.inputs = {model_}, .directories = {scratch_ / "model2"}}), "");
  EXPECT_EQ(Refusal({.inputs = {model_}, .directories = {scratch_.path()}}), "");
}

TEST(OutputTest, AFailedFileDoesNotKeepTheOthers) {
  const TemporaryDirectory directory;
  ::testing::internal::CaptureStdout();
  const std::string message = MessageOf([&] {
    WriteResults({{directory / "absent/a", "a"}, {directory / "b", "b"}}, "shown \x1b\n");
  });
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "shown \\x1b\n");
  EXPECT_THAT(message, HasSubstr("absent/a: cannot be written"));
  EXPECT_EQ(ReadFile(directory / "b"), "b");
}

TEST(OutputTest, Shortening) {
  EXPECT_EQ(Shortened("abc", 3), "abc");
  EXPECT_EQ(Shortened("abcd", 3), "abc");
  EXPECT_EQ(Shortened("困惑度", 5), "困惑");
  EXPECT_EQ(Shortened("x", 0), "");
}

TEST(OutputTest, WidthsFollowTheTerminal) {
  EXPECT_EQ(DisplayWidth("ppl"), 3u);
  EXPECT_EQ(DisplayWidth("困惑度"), 6u);
  EXPECT_EQ(DisplayWidth("★☆█"), 3u);
  EXPECT_EQ(DisplayWidth("：（"), 4u);
  EXPECT_EQ(DisplayWidth(""), 0u);
  EXPECT_EQ(Padded("集", 4, true), "  集");
  EXPECT_EQ(Padded("ab", 4, false), "ab  ");
  EXPECT_EQ(Padded("abcde", 4, false), "abcde");
}

TEST(OutputTest, TableAligns) {
  EXPECT_EQ(AlignedTable({{"set", "ppl"}, {"wikitext2", "5.79"}, {"集", "37.02"}}),
            "  set          ppl\n"
            "  ----------------\n"
            "  wikitext2   5.79\n"
            "  集         37.02\n");
  EXPECT_EQ(AlignedTable({{"a", "b"}, {"xx", "yy"}, {"z"}}, 2), "  a   b\n  ------\n  xx  yy\n  z\n");
  EXPECT_EQ(AlignedTable({{"set"}, {"\x1b[2J\n"}}), "  set\n  -----------\n  \\x1b[2J\\x0a\n");
}

}  // namespace
}  // namespace mica
