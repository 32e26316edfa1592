// What a run tells of itself while it works: status.json in its directory, which `mica status` reads from
// another terminal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/process.h"
#include "base/progress.h"
#include "record/compression.h"

namespace mica {

// The figures measured last.
struct LastFigures {
  std::optional<std::string> stage;  // absent while it goes on
  Ordered<double> perplexities;      // by set; NaN where one was not measured; key "ppl"
  Json other;
};

// How far a sweep is.
struct SweepStatus {
  std::optional<std::string> point;           // that is at work
  std::optional<uint64_t> finished, points;   // of all points
  std::optional<double> seconds_left;         // of the sweep; absent before a point has shown what one takes
  Json other;
};

// The whole of status.json; what a file does not say is absent.
struct StatusRecord {
  std::optional<std::string> experiment;  // its name
  std::vector<std::string> stages;        // of the run, first to last
  std::optional<std::string> stage;       // "done" when the run has ended well
  std::optional<LastFigures> last;
  std::optional<SweepStatus> sweep;  // of a sweep
  std::optional<std::string> phase;  // of the stage; while running is false, the phase that ended last
  std::optional<bool> running;
  std::optional<uint64_t> done, total;          // units
  std::optional<std::string> unit;              // "tokens"
  std::optional<std::string> detail;            // where in the phase: "layer 2/8"
  std::optional<double> seconds, seconds_left;  // of the phase
  PhaseTimes phase_seconds;                     // of ended phases, over all calls of the run
  std::optional<uint64_t> peak_memory_bytes;    // of the calls of the run, the largest
  std::optional<uint64_t> pid;                  // of the process
  std::optional<uint64_t> process_started;      // these as in base/process.h
  std::optional<std::string> boot, host;
  std::optional<std::string> gpu, gpu_bus;  // name and PCI address of the one that computes, if one does
  std::optional<std::string> updated;       // "2026-01-01T00:00:00Z"
  Json other;
};

// Throws Error naming `where` when it is not the status of a run.
StatusRecord StatusFromJson(const Json& json, const std::string& where);
Json ToJson(const StatusRecord& record);
// The process that wrote it.
ProcessIdentity ProcessOf(const StatusRecord& record);

// Keeps the status of a run in a file: what the run is, and how far its Progress says it is. Thread-safe.
class StatusFile : public ProgressSink {
 public:
  // Where `path` holds the status of an earlier call of the run, its times and its peak are kept.
  explicit StatusFile(std::filesystem::path path);

  void SetExperiment(const std::string& name);
  void SetStages(const std::vector<std::string>& stages);
  void SetStage(const std::string& stage);
  // The GPU that computes: its name and its PCI address.
  void SetGpu(const std::string& name, const std::string& bus);
  // How far the sweep is; its seconds_left are counted down from now on.
  void SetSweep(const SweepStatus& sweep);
  // The perplexities of a stage that has ended.
  void SetLast(const std::string& stage, const Ordered<double>& perplexities);

  // At most once a second, unless it must be `now`.
  void Report(const ProgressState& state, bool now) override;
  // Perplexities of the stage that goes on, one after the other.
  void Figure(const std::string& name, double value) override;

 private:
  void Write();

  std::mutex mutex_;
  const std::filesystem::path path_;
  const ProcessIdentity process_ = ThisProcess();
  StatusRecord record_;
  Ordered<double> earlier_seconds_;  // of the phases of earlier calls
  uint64_t earlier_peak_ = 0;
  std::optional<double> sweep_ends_;  // MonotonicSeconds(), as far as is known
  ProgressState state_;
  double written_ = 0;
};

}  // namespace mica
