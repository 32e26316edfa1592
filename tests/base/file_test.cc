#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

class FileTest : public ::testing::Test {
 protected:
  FileTest() : folder_(fs::temp_directory_path() / ("mica_file_test_" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~FileTest() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(FileTest, AppearsOnlyWhenCommitted) {
  const fs::path path = folder_ / "a";
  {
    AtomicFile file(path);
    file.Write("half");
  }
  EXPECT_TRUE(fs::is_empty(folder_));
  AtomicFile file(path);
  file.Write("whole");
  EXPECT_FALSE(fs::exists(path));
  file.Commit();
  EXPECT_EQ(ReadFile(path), "whole");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

// A limit of file sizes stands for a full disk.
TEST_F(FileTest, AFailedWriteIsAnErrorAndLeavesNothing) {
  struct rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = 100;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    AtomicFile file(folder_ / "large");
    file.Write(std::string(1000, 'x'));
  } catch (const Error& error) {
    message = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("large: writing failed after 100 bytes (File too large)"));
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(FileTest, ALinkStaysALink) {
  fs::create_directories(folder_ / "deep");
  WriteFileAtomically(folder_ / "deep" / "target", "old");
  fs::create_symlink("deep/target", folder_ / "inner");
  fs::create_symlink(folder_ / "inner", folder_ / "outer");
  fs::create_symlink("deep/new", folder_ / "dangling");
  WriteFileAtomically(folder_ / "outer", "new");
  WriteFileAtomically(folder_ / "dangling", "made");
  for (const char* link : {"inner", "outer", "dangling"}) EXPECT_TRUE(fs::is_symlink(folder_ / link)) << link;
  EXPECT_EQ(ReadFile(folder_ / "deep" / "target"), "new");
  EXPECT_EQ(ReadFile(folder_ / "deep" / "new"), "made");
  fs::create_symlink("circle", folder_ / "circle");
  EXPECT_THAT([&] { AtomicFile(folder_ / "circle"); },
              ThrowsMessage<Error>(HasSubstr("leads back to itself")));
}

TEST_F(FileTest, PermissionsAndUmaskAreKept) {
  const fs::path path = folder_ / "private";
  WriteFileAtomically(path, "old");
  fs::permissions(path, fs::perms(0600));
  WriteFileAtomically(path, "new");
  EXPECT_EQ(fs::status(path).permissions(), fs::perms(0600));
  for (const mode_t mask : {mode_t{022}, mode_t{002}, mode_t{077}}) {
    const mode_t before = ::umask(mask);
    WriteFileAtomically(folder_ / std::to_string(mask), "x");
    ::umask(before);
    EXPECT_EQ(fs::status(folder_ / std::to_string(mask)).permissions(), fs::perms(0666 & ~mask));
  }
}

TEST_F(FileTest, NamesMayBeAsLongAsTheSystemHasThem) {
  for (const size_t length : {251, 252, 255}) {
    const fs::path path = folder_ / std::string(length, 'n');
    WriteFileAtomically(path, "x");
    EXPECT_EQ(ReadFile(path), "x");
  }
  EXPECT_THAT([&] { AtomicFile(folder_ / std::string(256, 'n')); },
              ThrowsMessage<Error>(HasSubstr("File name too long")));
}

TEST_F(FileTest, LeftoversStopNobodyAndTwoWritersDoNotMeet) {
  fs::create_directories(folder_ / "a.tmp" / "full");  // whatever stands where a temporary file might
  AtomicFile one(folder_ / "a"), other(folder_ / "a");
  one.Write("one");
  other.Write("other");
  one.Commit();
  EXPECT_EQ(ReadFile(folder_ / "a"), "one");
  other.Commit();
  EXPECT_EQ(ReadFile(folder_ / "a"), "other");
  WriteFileAtomically(folder_ / (std::string(kTemporaryPrefix) + "1-2"), "of a dead process");
  EXPECT_FALSE(HoldsNothing(folder_));
  RemoveTemporaryFiles(folder_);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 2);  // a, a.tmp
}

TEST_F(FileTest, ALockIsHeldOnceAndLeavesNoFile) {
  const fs::path path = folder_ / "lock";
  {
    const FileLock lock(path, folder_);
    EXPECT_THAT([&] { FileLock(path, folder_); },
                ThrowsMessage<Error>(HasSubstr(folder_.string() + ": is being written by process " +
                                               std::to_string(::getpid()) + " on ")));
  }
  EXPECT_TRUE(fs::is_empty(folder_));
  WriteFileAtomically(path, "process 1 on a host that is gone\n");
  const FileLock lock(path, folder_);  // a file alone locks nothing
}

TEST_F(FileTest, ErrorsNameThePath) {
  const fs::path missing = folder_ / "missing";
  EXPECT_THAT([&] { ReadFile(missing); }, ThrowsMessage<Error>(HasSubstr(missing.string())));
  EXPECT_THAT([&] { MappedFile::Open(missing); }, ThrowsMessage<Error>(HasSubstr("No such file")));
  EXPECT_THAT([&] { MappedFile::Open(folder_); }, ThrowsMessage<Error>(HasSubstr("not a regular file")));
  EXPECT_THAT([&] { AtomicFile(folder_ / "no" / "where"); },
              ThrowsMessage<Error>(HasSubstr("cannot be written")));
}

TEST_F(FileTest, MapHoldsTheBytesAlsoAfterRelease) {
  const fs::path path = folder_ / "map";
  WriteFileAtomically(path, std::string(10000, 'x') + "end");
  const auto map = MappedFile::Open(path);
  map->Release(map->bytes().subspan(100, 5000));
  const std::string_view text(reinterpret_cast<const char*>(map->bytes().data()), map->size());
  EXPECT_EQ(text, std::string(10000, 'x') + "end");
}

TEST_F(FileTest, PartsOfAMapAreReadFromTheFile) {
  const fs::path path = folder_ / "parts";
  WriteFileAtomically(path, "0123456789");
  const auto map = MappedFile::Open(path);
  std::string read(4, ' ');
  map->Read(map->bytes().subspan(3, 4), reinterpret_cast<std::byte*>(read.data()));
  EXPECT_EQ(read, "3456");
  fs::resize_file(path, 5);
  EXPECT_THAT([&] { map->Read(map->bytes().subspan(3, 4), reinterpret_cast<std::byte*>(read.data())); },
              ThrowsMessage<Error>(HasSubstr("parts: became shorter while it was read")));
}

TEST_F(FileTest, AMapKnowsWhenItsFileChanged) {
  const fs::path path = folder_ / "map";
  const auto message = [](const std::shared_ptr<MappedFile>& map) {
    try {
      map->CheckUnchanged();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  WriteFileAtomically(path, std::string(10000, 'x'));
  const auto map = MappedFile::Open(path);
  EXPECT_EQ(message(map), "");
  WriteFileAtomically(path, std::string(10000, 'y'));  // another file of the same name
  EXPECT_THAT(message(map), HasSubstr("changed while it was read"));
  const auto again = MappedFile::Open(path);
  EXPECT_EQ(message(again), "");
  std::ofstream(path, std::ios::app) << "z";
  EXPECT_THAT(message(again), HasSubstr(path.string()));
  const auto last = MappedFile::Open(path);
  fs::remove(path);
  EXPECT_EQ(message(last), "");
}

TEST_F(FileTest, AMapThatLosesItsPagesEndsInOneLine) {
  const fs::path path = folder_ / "map";
  WriteFileAtomically(path, std::string(100000, 'x'));
  EXPECT_EXIT(
      {
        const auto map = MappedFile::Open(path);
        const auto other = MappedFile::Open(path);
        fs::resize_file(path, 10);
        volatile std::byte last = map->bytes()[99999];
        (void)last;
      },
      testing::ExitedWithCode(1), "^mica: .*map: became shorter while it was read");
}

TEST_F(FileTest, JsonErrorsNameTheFileAndDepthIsBounded) {
  const fs::path path = folder_ / "j.json";
  WriteFileAtomically(path, "{\"a\": [1, 2}");
  EXPECT_THAT([&] { ReadJson(path); }, ThrowsMessage<Error>(HasSubstr("j.json: is not valid JSON")));
  EXPECT_THAT([&] { ParseJson(std::string(100000, '['), "deep"); },
              ThrowsMessage<Error>(HasSubstr("nested deeper")));
  for (const auto& [text, reason] :
       {std::pair{"{\"a\": [1, 2}", "(line 1, column 12: unexpected '}', expected ']')"},
        std::pair{"{\"a\": ", "(line 1, column 7: it ends too early)"},
        std::pair{"[1e999]", "(the number 1e999 is too large)"},
        std::pair{"[\"\xff\"]", "(it holds text that is not UTF-8)"},
        std::pair{"{\"a\x1b", "(line 1, column 4, near '"}}) {
    EXPECT_THAT([&] { ParseJson(text, "t"); }, ThrowsMessage<Error>(HasSubstr(reason)));
  }
  WriteJson(path, Json{{"b", 1}, {"a", 2}});
  EXPECT_EQ(ReadJson(path).begin().key(), "b");
}

TEST(Sha256, PublishedVectors) {
  EXPECT_EQ(Sha256Hex(std::string_view("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex(std::string_view("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace mica
