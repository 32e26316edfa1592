#include "base/output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "tests/model/tiny_model.h"

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
}

}  // namespace
}  // namespace mica
