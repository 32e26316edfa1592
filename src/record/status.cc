#include "record/status.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/system.h"
#include "record/fields.h"

namespace mica {

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<LastFigures>& record) {
  archive("stage", record.stage);
  archive("ppl", record.perplexities);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<SweepStatus>& record) {
  archive("point", record.point);
  archive("finished", record.finished);
  archive("points", record.points);
  archive("seconds_left", record.seconds_left);
  archive.Other(record.other);
}

template <typename Archive>
void Fields(Archive& archive, typename Archive::template Of<StatusRecord>& record) {
  archive("experiment", record.experiment);
  archive.UnlessEmpty("stages", record.stages);
  archive("stage", record.stage);
  archive("last", record.last);
  archive("sweep", record.sweep);
  archive("phase", record.phase);
  archive("running", record.running);
  archive("done", record.done);
  archive("total", record.total);
  archive("unit", record.unit);
  archive("detail", record.detail);
  archive("seconds", record.seconds);
  archive("seconds_left", record.seconds_left);
  archive("phase_seconds", record.phase_seconds);
  archive("peak_memory_bytes", record.peak_memory_bytes);
  archive("pid", record.pid);
  archive("process_started", record.process_started);
  archive("boot", record.boot);
  archive("host", record.host);
  archive("gpu", record.gpu);
  archive("gpu_bus", record.gpu_bus);
  archive("updated", record.updated);
  archive.Other(record.other);
}

namespace {

constexpr double kInterval = 1.0;  // seconds between two writings

}  // namespace

StatusRecord StatusFromJson(const Json& json, const std::string& where) {
  StatusRecord record = FieldReader::Read<StatusRecord>(json, where, WrongTypes::kSkip);
  if (!record.pid) Fail("{}: is not the status of a run", where);
  return record;
}

Json ToJson(const StatusRecord& record) { return FieldWriter::Write(record); }

ProcessIdentity ProcessOf(const StatusRecord& record) {
  return {record.pid.value_or(0), record.process_started.value_or(0), record.boot.value_or(""),
          record.host.value_or("")};
}

StatusFile::StatusFile(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code code;
  if (!std::filesystem::exists(path_, code)) return;
  try {
    const StatusRecord earlier = StatusFromJson(ReadJson(path_), path_.string());
    earlier_seconds_ = earlier.phase_seconds.phases;
    earlier_peak_ = earlier.peak_memory_bytes.value_or(0);
  } catch (const Error&) {
    // What cannot be read is written anew: a status is a help, no result.
  }
}

void StatusFile::SetExperiment(const std::string& name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  record_.experiment = name;
  Write();
}

void StatusFile::SetStages(const std::vector<std::string>& stages) {
  const std::lock_guard<std::mutex> lock(mutex_);
  record_.stages = stages;
  Write();
}

void StatusFile::SetStage(const std::string& stage) {
  const std::lock_guard<std::mutex> lock(mutex_);
  record_.stage = stage;
  Write();
}

void StatusFile::SetGpu(const std::string& name, const std::string& bus) {
  const std::lock_guard<std::mutex> lock(mutex_);
  record_.gpu = name;
  record_.gpu_bus = bus;
  Write();
}

void StatusFile::SetLast(const std::string& stage, const Ordered<double>& perplexities) {
  const std::lock_guard<std::mutex> lock(mutex_);
  record_.last = LastFigures{stage, perplexities, {}};
  Write();
}

void StatusFile::SetSweep(const SweepStatus& sweep) {
  const std::lock_guard<std::mutex> lock(mutex_);
  record_.sweep = sweep;
  sweep_ends_.reset();
  if (sweep.seconds_left) sweep_ends_ = MonotonicSeconds() + *sweep.seconds_left;
  Write();
}

void StatusFile::Report(const ProgressState& state, bool now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  state_ = state;
  if (now || MonotonicSeconds() - written_ >= kInterval) Write();
}

void StatusFile::Figure(const std::string& name, double value) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!record_.last || record_.last->stage) record_.last = LastFigures{};  // those of the stage before
  record_.last->perplexities.emplace_back(name, value);
  Write();
}

// Facts of the run are rare, and the last one of a run ("done") must not be lost: they are written at once.
void StatusFile::Write() {
  written_ = MonotonicSeconds();
  const double elapsed = written_ - state_.began;
  record_.phase = state_.phase;
  record_.running = state_.running;
  record_.done = state_.done;
  record_.total = state_.total;
  record_.unit = state_.unit;
  record_.detail = state_.detail;
  record_.seconds = elapsed;
  record_.seconds_left.reset();
  if (state_.done > 0 && state_.total >= state_.done) {
    record_.seconds_left =
        elapsed * static_cast<double>(state_.total - state_.done) / static_cast<double>(state_.done);
  }
  if (record_.sweep && sweep_ends_) record_.sweep->seconds_left = std::max(0.0, *sweep_ends_ - written_);
  Ordered<double>& seconds = record_.phase_seconds.phases;
  seconds = earlier_seconds_;
  AddSeconds(seconds, state_.phase_seconds);
  record_.peak_memory_bytes = std::max(earlier_peak_, PeakResidentBytes());
  record_.pid = process_.pid;
  record_.process_started = process_.started;
  record_.boot = process_.boot;
  record_.host = process_.host;
  record_.updated = UtcTime();
  WriteJson(path_, ToJson(record_));
}

}  // namespace mica
