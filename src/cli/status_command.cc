#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/json.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/system.h"
#include "base/units.h"
#include "cli/commands.h"
#include "eval/report/comparison.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBarColumns = 32;

struct StatusOptions {
  fs::path run;
  bool watch = false;
  bool json = false;
};

enum class RunState { kRunning, kDone, kStopped };

Json ReadStatus(const fs::path& run) {
  const fs::path path = fs::is_directory(run) ? run / "status.json" : run;
  if (!fs::exists(path)) {
    Fail("{}: not found; give the directory of a 'mica run' that has begun", path.string());
  }
  Json status = ReadJson(path);
  if (!status.is_object() || !FindAt(status, "pid")) Fail("{}: is not the status of a run", path.string());
  return status;
}

// Whether the process that wrote the status is still there; the run is done when its last stage says so.
RunState StateOf(const Json& status) {
  if (TextAt(status, "stage") == "done") return RunState::kDone;
  const auto pid = static_cast<pid_t>(NumberAt(status, "pid").value_or(0));
  const bool alive = pid > 0 && (::kill(pid, 0) == 0 || errno == EPERM);
  return alive ? RunState::kRunning : RunState::kStopped;
}

const char* StateName(RunState state) {
  switch (state) {
    case RunState::kRunning:
      return "running";
    case RunState::kDone:
      return "done";
    case RunState::kStopped:
      return "stopped";
  }
  return "";
}

std::string ShortText(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) {
    return fmt::format("{:.{}f}", value.get<double>(), std::abs(value.get<double>()) < 1 ? 4 : 2);
  }
  return value.dump();
}

// "wikitext2 107.3, ptb 235.8" of an object of figures, nested ones in brackets.
std::string FiguresText(const Json& figures) {
  if (!figures.is_object()) return ShortText(figures);
  std::string text;
  for (const auto& [key, value] : figures.items()) {
    text += (text.empty() ? "" : ", ") + key + " " +
            (value.is_object() ? "(" + FiguresText(value) + ")" : ShortText(value));
  }
  return text;
}

std::string StagesText(const Json& status) {
  const std::string current = TextAt(status, "stage").value_or("");
  const Json* stages = FindAt(status, "stages");
  if (stages == nullptr || !stages->is_array()) return current;
  std::string text;
  for (const Json& stage : *stages) {
    const std::string name = ShortText(stage);
    text += (text.empty() ? "" : " > ") + (name == current ? "[" + name + "]" : name);
  }
  return text;
}

std::string StatusText(const Json& status, RunState state) {
  std::string text;
  const auto line = [&](const char* name, const std::string& value) {
    if (!value.empty()) text += fmt::format("{:<12} {}\n", name, value);
  };
  line("experiment", TextAt(status, "experiment").value_or(""));
  const std::string pid = fmt::format("{:.0f}", NumberAt(status, "pid").value_or(0));
  std::string state_text = StateName(state);
  if (state == RunState::kRunning) state_text += ", process " + pid;
  if (state == RunState::kStopped)
    state_text += ": process " + pid + " is gone; the same command goes on where it was";
  line("state",
       state_text + fmt::format(" (written {})", TextAt(status, "updated").value_or("at an unknown time")));
  line("stage", StagesText(status));
  if (state != RunState::kDone) {
    const double done = NumberAt(status, "done").value_or(0), total = NumberAt(status, "total").value_or(0);
    const double share = total > 0 ? std::clamp(done / total, 0.0, 1.0) : 0;
    const size_t filled = static_cast<size_t>(share * kBarColumns);
    line("phase", fmt::format("{}  [{}{}] {:.0f} %", TextAt(status, "phase").value_or("?"),
                              std::string(filled, '#'), std::string(kBarColumns - filled, '.'), 100 * share));
    std::string detail = fmt::format("{:.0f} of {:.0f} {}", done, total, TextAt(status, "unit").value_or(""));
    if (const auto where = TextAt(status, "detail"); where && !where->empty()) detail += ", " + *where;
    line("progress", detail);
    std::string time = FormatDuration(NumberAt(status, "seconds").value_or(0)) + " in this phase";
    if (const auto left = NumberAt(status, "seconds_left"); left && state == RunState::kRunning)
      time += ", " + FormatDuration(*left) + " left";
    line("time", time);
  }
  if (const Json* phases = FindAt(status, "phase_seconds"); phases != nullptr && phases->is_object()) {
    std::string all;
    for (const auto& [phase, seconds] : phases->items()) {
      if (seconds.is_number())
        all += (all.empty() ? "" : ", ") + phase + " " + FormatDuration(seconds.get<double>());
    }
    line("finished", all);
  }
  if (const auto memory = NumberAt(status, "peak_memory_bytes")) line("peak memory", FormatBytes(*memory));
  if (const Json* last = FindAt(status, "last")) line("last", FiguresText(*last));
  return text;
}

Json StatusJson(Json status, RunState state) {
  status["state"] = StateName(state);
  return status;
}

void ShowStatus(const StatusOptions& options) {
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  for (;;) {
    const Json status = ReadStatus(options.run);
    const RunState state = StateOf(status);
    const std::string text = options.json ? JsonText(StatusJson(status, state)) : StatusText(status, state);
    const bool again = options.watch && state == RunState::kRunning;
    // On a terminal each drawing replaces the one before; elsewhere they follow each other, parted by a blank
    // line.
    WriteStdout(options.watch && terminal && !options.json ? "\033[H\033[J" + text
                                                           : text + (again && !options.json ? "\n" : ""));
    if (!again) return;
    for (int tenth = 0; tenth < 10; ++tenth) {
      if (InterruptRequested()) return;  // Ctrl-C ends the watching, which is no failure
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }
}

}  // namespace

void AddStatusCommand(CLI::App& app) {
  auto options = std::make_shared<StatusOptions>();
  CLI::App& command =
      *app.add_subcommand("status", "Show how far a run is: stage, phase, time left, memory, last figures");
  command.add_option("run", options->run, "Directory of the run")->required();
  command.add_flag("--watch", options->watch, "Show it anew each second until the run ends");
  command.add_flag("--json", options->json,
                   "Print the status as JSON, with \"state\": running, done or stopped");
  command.callback([options] { ShowStatus(*options); });
}

}  // namespace mica
