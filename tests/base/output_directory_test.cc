#include "base/output_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>

#include "base/file.h"
#include "tests/error_message.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

void Fill(OutputDirectory& output, const std::string& content) {
  WriteFileAtomically(output.File("weights"), content);
  WriteFileAtomically(output.File("config"), content);
}

size_t Entries(const fs::path& directory) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory), {}));
}

TEST(OutputDirectoryTest, FilesAppearTogether) {
  const TemporaryDirectory scratch;
  const fs::path out = scratch / "deep/out";
  {
    OutputDirectory output(out);
    Fill(output, "x");
    EXPECT_FALSE(fs::exists(out / "weights"));
    output.Commit();
  }
  EXPECT_EQ(ReadFile(out / "weights"), "x");
  EXPECT_EQ(Entries(out), 2u);
}

TEST(OutputDirectoryTest, UnfinishedLeavesNothing) {
  const TemporaryDirectory scratch;
  {
    OutputDirectory output(scratch / "out");
    Fill(output, "x");
  }
  EXPECT_FALSE(fs::exists(scratch / "out"));
  MakeDirectories(scratch / "kept");
  { OutputDirectory output(scratch / "kept"); }
  EXPECT_TRUE(fs::is_empty(scratch / "kept"));
}

TEST(OutputDirectoryTest, LinksAreFollowedAndStay) {
  const TemporaryDirectory scratch;
  MakeDirectories(scratch / "real");
  fs::create_directory_symlink("real", scratch / "link");
  fs::create_directory_symlink("new", scratch / "dangling");
  for (const auto& [link, target] : {std::pair{"link", "real"}, std::pair{"dangling", "new"}}) {
    OutputDirectory output(scratch / link);
    Fill(output, "x");
    output.Commit();
    EXPECT_TRUE(fs::is_symlink(scratch / link));
    EXPECT_EQ(ReadFile(scratch / target / "config"), "x");
  }
}

TEST(OutputDirectoryTest, RefusesWhatIsNotEmpty) {
  const TemporaryDirectory scratch;
  WriteFileAtomically(scratch / "file", "x");
  ExpectError([&] { OutputDirectory(scratch / "file"); }, {"file: is not a directory"});
  ExpectError([&] { OutputDirectory(scratch.path()); }, {"not an empty directory"});
  EXPECT_EQ(Entries(scratch.path()), 1u);
  fs::remove(scratch / "file");
  MakeDirectories(scratch / "lost+found");  // the root of a new file system
  OutputDirectory output(scratch.path());
}

TEST(OutputDirectoryTest, AnotherProcessIsNamedAndItsDeathFreesTheDirectory) {
  const TemporaryDirectory scratch;
  const fs::path out = scratch / "out";
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    OutputDirectory output(out);
    WriteFileAtomically(output.File("config"), "half");
    AtomicFile unfinished(output.File("weights"));
    [[maybe_unused]] const ssize_t written = ::write(pipe[1], "x", 1);
    ::pause();
    ::_exit(0);
  }
  char byte;
  ASSERT_EQ(::read(pipe[0], &byte, 1), 1);
  ExpectError([&] { OutputDirectory output(out); },
              {out.string(), "is being written by process " + std::to_string(child)});
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  OutputDirectory output(out);
  Fill(output, "whole");
  output.Commit();
  EXPECT_EQ(ReadFile(out / "config"), "whole");
  EXPECT_EQ(Entries(out), 2u);
}

// Killed while its files were put into place, one of them was there already.
TEST(OutputDirectoryTest, HalfPlacedFilesAreNoObstacle) {
  const TemporaryDirectory scratch;
  MakeDirectories(scratch / ".partial");
  WriteFileAtomically(scratch / ".partial/placed", "weights\nconfig\n");
  WriteFileAtomically(scratch / "weights", "old");
  WriteFileAtomically(scratch / ".partial/config", "old");
  {
    OutputDirectory output(scratch.path());
    EXPECT_FALSE(fs::exists(scratch / "weights"));
    Fill(output, "new");
    output.Commit();
  }
  EXPECT_EQ(ReadFile(scratch / "weights"), "new");
  EXPECT_EQ(ReadFile(scratch / "config"), "new");
  EXPECT_EQ(Entries(scratch.path()), 2u);
}

}  // namespace
}  // namespace mica
