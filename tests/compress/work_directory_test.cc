// The output directory of a compression under way: what it opens and what it refuses, what it remembers of
// finished shards, and what it leaves behind.
#include "compress/work_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "tests/error_message.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

void WriteBytes(const fs::path& path, size_t bytes) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << std::string(bytes, 'x');
}

// Everything below directory, as sorted paths relative to it; a directory ends in "/".
std::vector<std::string> Holds(const fs::path& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(directory))
    names.push_back(fs::relative(entry.path(), directory).string() + (entry.is_directory() ? "/" : ""));
  std::sort(names.begin(), names.end());
  return names;
}

class WorkDirectoryTest : public testing::Test {
 protected:
  TemporaryDirectory directory_;
  fs::path out_ = directory_ / "out";
  const Identity identity_ =
      IdentityFromJson({{"--bits", 3}, {"--seed", 0}, {"model", "abc"}, {"code", "1.0"}}, "test");

  // identity_ with another value of a part; null: without the part.
  Identity Other(const std::string& part, const Json& value) const {
    Json json = ToJson(identity_);
    json[part] = value;
    return IdentityFromJson(json, "test");
  }
  // The record of a layer's shard, so that there is something to go on with.
  static void RecordLayer(const WorkDirectory& work) {
    work.Record(kShardsBeforeLayers + 1, {{"a"}, 7, std::nullopt});
  }
  static fs::path Inside(const WorkDirectory& work, const std::string& name) {
    return work.StatisticsPath().parent_path() / name;
  }
};

TEST_F(WorkDirectoryTest, OpensANewDirectoryAndMakesItsParents) {
  const fs::path deep = directory_ / "a/b/out";
  const WorkDirectory work(deep, identity_, 3);
  EXPECT_EQ(work.out(), deep);
  EXPECT_TRUE(fs::is_directory(deep));
  EXPECT_TRUE(fs::is_directory(Inside(work, "x").parent_path()));
  EXPECT_EQ(Holds(deep).size(), 2u);  // the place of intermediate results and who they belong to
}

TEST_F(WorkDirectoryTest, OpensAnEmptyDirectory) {
  fs::create_directories(out_);
  const WorkDirectory work(out_, identity_, 3);
  EXPECT_TRUE(fs::is_directory(Inside(work, "x").parent_path()));
}

TEST_F(WorkDirectoryTest, IntermediateResultsLiveInsideTheDirectoryButApartFromTheResult) {
  const WorkDirectory work(out_, identity_, 12);
  const std::string file = fs::relative(work.StatisticsPath(), out_).string();
  EXPECT_THAT(file, testing::EndsWith("/statistics.safetensors"));
  EXPECT_THAT(file, testing::Not(testing::StartsWith("..")));
  EXPECT_EQ(work.ShardPath(3), out_ / "model-00003-of-00012.safetensors");
}

TEST_F(WorkDirectoryTest, GoesOnWithTheSameIdentityAndKeepsEveryFile) {
  const WorkDirectory first(out_, identity_, 2);
  WriteBytes(Inside(first, "statistics.bin"), 5);
  WriteBytes(first.ShardPath(1), 7);
  const std::vector<std::string> before = Holds(out_);
  const WorkDirectory again(out_, identity_, 2);
  EXPECT_EQ(Holds(out_), before);
  EXPECT_EQ(fs::file_size(Inside(again, "statistics.bin")), 5u);
}

TEST_F(WorkDirectoryTest, GoesOnWhereARunStoppedBeforeItSaidWhichItWas) {
  { const WorkDirectory work(out_, identity_, 3); }
  const std::vector<std::string> complete = Holds(out_);
  // Whatever its name: all that says which run it was is taken away.
  const WorkDirectory names(out_, identity_, 3);
  const fs::path place = Inside(names, "x").parent_path();
  for (const auto& entry : fs::directory_iterator(place)) fs::remove_all(entry.path());
  ASSERT_EQ(Holds(out_).size(), 1u);
  const WorkDirectory again(out_, identity_, 3);
  EXPECT_EQ(Holds(out_), complete);
  const WorkDirectory once_more(out_, identity_, 3);  // and it is known from now on
  RecordLayer(once_more);
  ExpectError([&] { WorkDirectory(out_, Other("model", "abd"), 3); },
              {out_.string(), "model abc against abd"});
}

TEST_F(WorkDirectoryTest, RefusesAnotherIdentityNamesWhatDiffersAndTouchesNothing) {
  const WorkDirectory work(out_, identity_, 3);
  RecordLayer(work);
  const std::vector<std::string> before = Holds(out_);
  const std::pair<Identity, std::string> others[] = {{Other("--bits", 4), "--bits 3 against 4"},
                                                     {Other("code", nullptr), "code 1.0 against none"},
                                                     {Other("more", true), "more none against true"}};
  for (const auto& [other, clause] : others) {
    ExpectError([&] { WorkDirectory(out_, other, 3); }, {out_.string(), clause});
    EXPECT_EQ(Holds(out_), before);
  }
  EXPECT_NO_THROW(WorkDirectory(out_, identity_, 3));
  Json turned = Json::object();  // the order of the parts is no part
  const Json json = ToJson(identity_);
  for (auto part = json.rbegin(); part != json.rend(); ++part) turned[part.key()] = part.value();
  EXPECT_NO_THROW(WorkDirectory(out_, IdentityFromJson(turned, "test"), 3));
}

TEST_F(WorkDirectoryTest, ARunWithNothingToGoOnWithIsReplaced) {
  {
    const WorkDirectory work(out_, identity_, 3);
    WriteBytes(work.ShardPath(1), 7);  // embedding and head, soon made again
    work.Record(1, {{"a"}, 7, std::nullopt});
    EXPECT_FALSE(work.Resumable());
  }
  const WorkDirectory other(out_, Other("--bits", 4), 3);
  EXPECT_FALSE(fs::exists(other.ShardPath(1)));
  EXPECT_FALSE(other.Finished(1).has_value());
  WriteBytes(other.StatisticsPath(), 5);
  EXPECT_TRUE(other.Resumable());
  ExpectError([&] { WorkDirectory(out_, identity_, 3); }, {out_.string(), "--bits 4 against 3"});
}

TEST_F(WorkDirectoryTest, RefusesForeignFilesNamesThePlaceAndTouchesNothing) {
  WriteBytes(out_ / "notes.txt", 3);
  ExpectError([&] { WorkDirectory(out_, identity_, 3); }, {out_.string(), "is not empty"});
  EXPECT_THAT(Holds(out_), ElementsAre("notes.txt"));
  fs::remove(out_ / "notes.txt");
  fs::create_directories(out_ / "subdirectory");
  ExpectError([&] { WorkDirectory(out_, identity_, 3); }, {out_.string(), "is not empty"});
  EXPECT_THAT(Holds(out_), ElementsAre("subdirectory/"));
}

TEST_F(WorkDirectoryTest, RefusesForeignFilesBesideARunThatDidNotSayWhichItWas) {
  {
    const WorkDirectory work(out_, identity_, 3);
    fs::remove_all(Inside(work, "x").parent_path());
    fs::create_directories(Inside(work, "x").parent_path());
  }
  WriteBytes(out_ / "config.json", 3);
  ExpectError([&] { WorkDirectory(out_, identity_, 3); }, {out_.string(), "is not empty"});
  EXPECT_EQ(Holds(out_).size(), 2u);
}

TEST_F(WorkDirectoryTest, RefusesAFileInItsPlace) {
  WriteBytes(out_, 3);
  ExpectError([&] { WorkDirectory(out_, identity_, 3); }, {out_.string(), "is not a directory"});
  EXPECT_EQ(fs::file_size(out_), 3u);
}

TEST_F(WorkDirectoryTest, AShardRecordComesBackAsItWasRecordedEvenToALaterRun) {
  MatrixRecord matrix;
  matrix.rows = 3, matrix.cols = 5, matrix.mean_code_bits = 0.1, matrix.bits_per_weight = 2,
  matrix.zero_share = 0;
  const ShardRecord shard = {
      {"model.layers.0.mlp.up_proj.codes", "b"}, 11, LayerRecord{0, 9, {{"mlp.up_proj", matrix}}, {}}};
  {
    const WorkDirectory work(out_, identity_, 3);
    EXPECT_FALSE(work.Finished(2).has_value());
    WriteBytes(work.ShardPath(2), 11);
    EXPECT_FALSE(work.Finished(2).has_value());  // a file without a record is not finished
    work.Record(2, shard);
  }
  const WorkDirectory later(out_, identity_, 3);
  const auto finished = later.Finished(2);
  ASSERT_TRUE(finished.has_value());
  EXPECT_EQ(finished->tensors, shard.tensors);
  EXPECT_EQ(finished->bytes, shard.bytes);
  EXPECT_EQ(ToJson(*finished), ToJson(shard));
  EXPECT_EQ(finished->layer->linears.at(0).second.mean_code_bits, 0.1);
  EXPECT_FALSE(later.Finished(1).has_value());
  EXPECT_FALSE(later.Finished(3).has_value());
  // A later record takes the place of the earlier one.
  later.Record(2, {{}, 11, std::nullopt});
  EXPECT_FALSE(later.Finished(2)->layer.has_value());
  EXPECT_THAT(later.Finished(2)->tensors, IsEmpty());
}

TEST_F(WorkDirectoryTest, ARecordedShardOfAnotherSizeOrNoneIsRefusedByName) {
  const WorkDirectory work(out_, identity_, 2);
  work.Record(1, {{"a"}, 11, std::nullopt});
  const fs::path file = work.ShardPath(1);
  const auto finished = [&] { work.Finished(1); };
  ExpectError(finished, {file.string(), "11 bytes", out_.string()});  // no file
  for (const size_t bytes : {0, 10, 12}) {
    WriteBytes(file, bytes);
    ExpectError(finished, {file.string(), "11 bytes", out_.string()});
  }
  WriteBytes(file, 11);
  EXPECT_TRUE(work.Finished(1).has_value());
  // The same shard of another number of shards is another file.
  const WorkDirectory longer(out_, identity_, 3);
  ExpectError([&] { longer.Finished(1); }, {longer.ShardPath(1).string()});
}

TEST_F(WorkDirectoryTest, ADamagedRecordIsRefusedByName) {
  const WorkDirectory work(out_, identity_, 1);
  const std::vector<std::string> before = Holds(out_);
  WriteBytes(work.ShardPath(1), 11);
  work.Record(1, {{"a"}, 11, std::nullopt});
  std::vector<std::string> after = Holds(out_);
  std::erase_if(after, [&](const std::string& name) {
    return std::find(before.begin(), before.end(), name) != before.end() || name.ends_with(".safetensors");
  });
  ASSERT_EQ(after.size(), 1u);
  const fs::path record = out_ / after[0];
  for (const char* text : {"{}", R"({"tensors": ["a"], "bytes": "many", "facts": {}})",
                           R"({"tensors": "a", "bytes": 11, "facts": {}})",
                           R"({"tensors": ["a"], "bytes": 11})", "[]", "{\"tens"}) {
    std::ofstream(record) << text;
    ExpectError([&] { work.Finished(1); }, {record.string()});
  }
}

TEST_F(WorkDirectoryTest, DiscardRemovesAllThatTheRunHasWrittenAndTheEmptyDirectory) {
  const WorkDirectory work(out_, identity_, 3);
  WriteBytes(Inside(work, "statistics.bin"), 5);
  WriteBytes(Inside(work, "deep/er"), 5);
  for (const size_t shard : {1, 3}) {
    WriteBytes(work.ShardPath(shard), 7);
    work.Record(shard, {{}, 7, std::nullopt});
  }
  work.Discard();
  EXPECT_FALSE(fs::exists(out_));
  EXPECT_TRUE(fs::exists(out_.parent_path()));
  EXPECT_THAT(Holds(directory_.path()), IsEmpty());
}

TEST_F(WorkDirectoryTest, DiscardLeavesWhatIsNotTheRuns) {
  const WorkDirectory work(out_, identity_, 3);
  WriteBytes(work.ShardPath(1), 7);
  WriteBytes(out_ / "notes.txt", 3);
  WriteBytes(out_ / "model-00001-of-00004.safetensors", 7);  // of a run of another length
  WriteBytes(directory_ / "beside", 1);
  work.Discard();
  EXPECT_THAT(Holds(directory_.path()),
              ElementsAre("beside", "out/", "out/model-00001-of-00004.safetensors", "out/notes.txt"));
}

TEST_F(WorkDirectoryTest, ClearRemovesIntermediateResultsAndLeavesTheResult) {
  const WorkDirectory work(out_, identity_, 1);
  WriteBytes(Inside(work, "deep/er"), 5);
  WriteBytes(work.ShardPath(1), 7);
  work.Record(1, {{}, 7, std::nullopt});
  WriteBytes(out_ / "config.json", 3);
  WorkDirectory::Clear(out_);
  EXPECT_THAT(Holds(out_), ElementsAre("config.json", "model-00001-of-00001.safetensors"));
  WorkDirectory::Clear(out_);  // once more changes nothing
  WorkDirectory::Clear(directory_ / "absent");
  EXPECT_THAT(Holds(directory_.path()),
              ElementsAre("out/", "out/config.json", "out/model-00001-of-00001.safetensors"));
  // A finished run is not a stopped one.
  ExpectError([&] { WorkDirectory(out_, identity_, 1); }, {out_.string(), "is not empty"});
}

}  // namespace
}  // namespace mica
