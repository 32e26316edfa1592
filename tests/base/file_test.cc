#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
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

TEST_F(FileTest, FullDiskIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const fs::path path = folder_ / "full";
  fs::create_symlink("/dev/full", path.string() + ".tmp");
  AtomicFile file(path);
  EXPECT_THAT([&] { file.Write("x"); }, ThrowsMessage<Error>(HasSubstr("No space left on device")));
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
