#include "record/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::ThrowsMessage;

TEST(StatusRecordTest, ReadsAndWritesTheSame) {
  Json json = Json::parse(R"({"experiment": "demo", "stages": ["baseline", "compress"], "stage": "compress",
    "last": {"stage": "baseline", "ppl": {"c4": 12.345, "ptb": 30.5}}, "phase": "calibrate", "running": true, "done": 30,
    "total": 120, "unit": "tokens", "detail": "", "seconds": 61.5, "seconds_left": 184.5, "phase_seconds": {"c4": 5.25},
    "peak_memory_bytes": 123456789, "pid": 4711, "gpu": "NVIDIA H100",
    "gpu_bus": "0000:3b:00.0", "updated": "2026-01-01T00:00:00Z", "new": [1]})");
  const StatusRecord record = StatusFromJson(json, "status.json");
  EXPECT_THAT(record.stages, ElementsAre("baseline", "compress"));
  EXPECT_THAT(record.last->perplexities, ElementsAre(Pair("c4", 12.345), Pair("ptb", 30.5)));
  EXPECT_EQ(record.done, 30u);
  EXPECT_EQ(record.pid, 4711u);
  EXPECT_EQ(ToJson(record).dump(), json.dump());
  json.erase("pid");
  for (const Json& other : {json, Json::array()}) {
    EXPECT_THAT([&] { StatusFromJson(other, "status.json"); },
                ThrowsMessage<Error>(HasSubstr("status.json: is not the status of a run")));
  }
}

TEST(StatusFileTest, TellsWhatTheRunIsAndHowFar) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "status.json";
  const auto read = [&] { return StatusFromJson(ReadJson(path), path.string()); };
  StatusFile file(path);
  Progress progress(false);
  progress.ReportTo(&file);
  EXPECT_FALSE(std::filesystem::exists(path));
  file.SetExperiment("demo");
  EXPECT_EQ(read().phase, "");
  EXPECT_EQ(read().running, false);
  EXPECT_TRUE(read().stages.empty());
  file.SetStages({"baseline", "compress"});
  file.SetGpu("NVIDIA H100", "0000:3b:00.0");
  EXPECT_EQ(read().gpu_bus, "0000:3b:00.0");
  file.SetStage("baseline");
  progress.Begin("c4", 100, "tokens");
  EXPECT_EQ(read().running, true);
  EXPECT_FALSE(read().seconds_left);
  progress.Advance(25, "layer 1/4");
  progress.Figure("c4", 12.5);  // writes at once, Advance once a second
  EXPECT_EQ(read().done, 25u);
  EXPECT_EQ(read().detail, "layer 1/4");
  EXPECT_NEAR(*read().seconds_left, 3 * *read().seconds, 1e-9);
  EXPECT_THAT(read().last->perplexities, ElementsAre(Pair("c4", 12.5)));
  EXPECT_FALSE(read().last->stage);
  progress.Figure("ptb", 30.0);
  progress.End();
  EXPECT_THAT(read().phase_seconds.phases, ElementsAre(Pair("c4", DoubleNear(*read().seconds, 0.1))));
  file.SetLast("baseline", {{"c4", 12.5}, {"ptb", 30.0}});
  file.SetStage("done");
  EXPECT_EQ(read().last->stage, "baseline");
  EXPECT_EQ(read().last->perplexities.size(), 2u);
  progress.Figure("c4", 13.0);
  EXPECT_THAT(read().last->perplexities, ElementsAre(Pair("c4", 13.0))) << "of the stage that goes on";
  EXPECT_EQ(read().stage, "done");
  EXPECT_EQ(read().experiment, "demo");
  EXPECT_EQ(read().pid, static_cast<uint64_t>(::getpid()));
}

}  // namespace
}  // namespace mica
