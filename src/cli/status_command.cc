#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "base/output.h"
#include "base/system.h"
#include "base/terminal.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "device/gpu_monitor.h"
#include "record/options.h"
#include "record/status.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBarColumns = 32;
constexpr std::chrono::minutes kFresh{10};

struct StatusOptions {
  fs::path run;
  Json given = Json::object();
};

enum class RunState { kRunning, kDone, kStopped, kElsewhere };

fs::path StatusPath(const fs::path& run) { return fs::is_directory(run) ? run / "status.json" : run; }

StatusRecord ReadStatus(const fs::path& run) {
  const fs::path path = StatusPath(run);
  if (!fs::exists(path)) {
    Fail("{}: not found; give the directory of a 'mica run' that has begun", path.string());
  }
  return StatusFromJson(ReadJson(path), path.string());
}

// Whether the process that wrote the status is still there; the run is done when its last stage says so.
RunState StateOf(const StatusRecord& status) {
  if (status.stage == "done") return RunState::kDone;
  switch (StateOf(ProcessOf(status))) {
    case ProcessState::kRunning:
      return RunState::kRunning;
    case ProcessState::kGone:
      return RunState::kStopped;
    case ProcessState::kElsewhere:
      return RunState::kElsewhere;
  }
  return RunState::kStopped;
}

const char* StateName(RunState state) {
  switch (state) {
    case RunState::kRunning:
      return "running";
    case RunState::kDone:
      return "done";
    case RunState::kStopped:
      return "stopped";
    case RunState::kElsewhere:
      return "unknown";
  }
  return "";
}

// "stage baseline, ppl (wikitext2 107.30, ptb 235.81)".
std::string FiguresText(const LastFigures& last) {
  if (!last.stage && last.perplexities.empty()) return "";
  std::string sets;
  for (const auto& [name, perplexity] : last.perplexities) {
    const std::string figure =
        std::isnan(perplexity) ? "null" : FormatPerplexity(std::log(perplexity), perplexity < 1 ? 4 : 2);
    sets += (sets.empty() ? "" : ", ") + name + " " + figure;
  }
  return (last.stage ? "stage " + *last.stage + ", " : "") + "ppl (" + sets + ")";
}

std::string StagesText(const StatusRecord& status) {
  const std::string current = status.stage.value_or("");
  if (status.stages.empty()) return current;
  std::string text;
  for (const std::string& stage : status.stages)
    text += (text.empty() ? "" : " > ") + (stage == current ? "[" + stage + "]" : stage);
  return text;
}

// "point 3 of 8, bpw-2.5, 1:02:45 left".
std::string SweepText(const SweepStatus& sweep, RunState state) {
  const uint64_t finished = sweep.finished.value_or(0), points = sweep.points.value_or(0);
  if (finished >= points) return fmt::format("all {} points", points);
  std::string text = fmt::format("{} of {} points finished", finished, points);
  if (sweep.point) text += ", at " + *sweep.point;
  if (sweep.seconds_left && state == RunState::kRunning)
    text += ", " + FormatDuration(*sweep.seconds_left) + " left of the sweep";
  return text;
}

// What the GPU of a run does while the run goes on here; nothing where it has none or NVML does not know it.
std::optional<GpuLoad> LoadOf(const StatusRecord& status, RunState state) {
  if (state != RunState::kRunning || !status.gpu_bus) return std::nullopt;
  static const GpuMonitor monitor;  // one for all drawings
  return monitor.LoadOf(*status.gpu_bus);
}

std::string StatusText(const StatusRecord& status, RunState state, const std::optional<GpuLoad>& gpu) {
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    if (!value.empty()) text += fmt::format("{:<12} {}\n", name, Printable(value, std::string::npos));
  };
  line("experiment", status.experiment.value_or(""));
  const std::string pid = fmt::format("{}", status.pid.value_or(0));
  std::string state_text = StateName(state);
  if (state == RunState::kRunning) state_text += ", process " + pid;
  if (state == RunState::kStopped)
    state_text += ": process " + pid + " is gone; the same command goes on where it was";
  if (state == RunState::kElsewhere)
    state_text += ": process " + pid + " is one of " + status.host.value_or("another host") + ", ask there";
  line("state", state_text + fmt::format(" (written {})", status.updated.value_or("at an unknown time")));
  line("stage", StagesText(status));
  if (status.sweep) line("sweep", SweepText(*status.sweep, state));
  if (state != RunState::kDone) {
    const auto done = static_cast<double>(status.done.value_or(0));
    const auto total = static_cast<double>(status.total.value_or(0));
    const double share = total > 0 ? std::clamp(done / total, 0.0, 1.0) : 0;
    const size_t filled = static_cast<size_t>(share * kBarColumns);
    line("phase", fmt::format("{}  [{}{}] {:.0f} %", status.phase.value_or("?"), std::string(filled, '#'),
                              std::string(kBarColumns - filled, '.'), 100 * share));
    std::string detail = fmt::format("{:.0f} of {:.0f} {}", done, total, status.unit.value_or(""));
    if (!status.detail.value_or("").empty()) detail += ", " + *status.detail;
    line("progress", detail);
    std::string time = FormatDuration(status.seconds.value_or(0)) + " in this phase";
    if (status.seconds_left && state == RunState::kRunning)
      time += ", " + FormatDuration(*status.seconds_left) + " left";
    line("time", time);
  }
  std::string finished;
  for (const auto& [phase, seconds] : status.phase_seconds.phases)
    finished += (finished.empty() ? "" : ", ") + phase + " " + FormatDuration(seconds);
  line("finished", finished);
  if (status.peak_memory_bytes)
    line("peak memory", FormatBytes(static_cast<double>(*status.peak_memory_bytes)));
  if (gpu) line("GPU", status.gpu.value_or(*status.gpu_bus) + ": " + LoadText(*gpu));
  if (status.last) line("last", FiguresText(*status.last));
  return text;
}

Json StatusJson(const StatusRecord& status, RunState state, const std::optional<GpuLoad>& gpu) {
  Json json = ToJson(status);
  json["state"] = StateName(state);
  if (gpu) {
    Json& load = json["gpu_load"];
    load["used_bytes"] = gpu->used_bytes;
    load["memory_bytes"] = gpu->memory_bytes;
    if (gpu->busy_percent) load["busy_percent"] = *gpu->busy_percent;
  }
  return json;
}

// Whether the status was written not long ago: all that shows that a process of another host still works.
bool IsFresh(const fs::path& run) {
  std::error_code code;
  const auto written = fs::last_write_time(StatusPath(run), code);
  return !code && fs::file_time_type::clock::now() - written < kFresh;
}

void ShowStatus(const StatusOptions& options) {
  const auto is_set = [&](const char* name) {
    return ValueOf(options.given, FindOption(StatusOptionTable(), name)).get<bool>();
  };
  const bool json = is_set("json"), watch = is_set("watch");
  const bool terminal = MovesCursor(STDOUT_FILENO);
  for (;;) {
    const StatusRecord status = ReadStatus(options.run);
    const RunState state = StateOf(status);
    const std::optional<GpuLoad> gpu = LoadOf(status, state);
    const std::string text = json ? JsonText(StatusJson(status, state, gpu)) : StatusText(status, state, gpu);
    const bool again =
        watch && (state == RunState::kRunning || (state == RunState::kElsewhere && IsFresh(options.run)));
    // On a terminal each drawing replaces the one before; elsewhere they follow each other, parted by a blank
    // line.
    const bool redraw = watch && terminal && !json;
    if (redraw) ClearScreen();
    WriteStdout(text + (again && !redraw && !json ? "\n" : ""));
    if (!again) return;
    for (int tenth = 0; tenth < 10; ++tenth) {
      if (InterruptRequested()) return;  // Ctrl-C ends the watching, which is no failure
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
}

}  // namespace

Subcommand StatusCommand() {
  auto options = std::make_shared<StatusOptions>();
  return {.name = "status",
          .help = "Show how far a run is: stage, phase, time left, memory, the GPU's load, last figures",
          .arguments = {{"run", &options->run, "Directory of the run"}},
          .flags = {{StatusOptionTable(), &options->given}},
          .run = [options] { ShowStatus(*options); }};
}

}  // namespace mica
