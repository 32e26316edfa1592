#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/log.h"
#include "base/output.h"
#include "base/system.h"
#include "base/terminal.h"
#include "base/text.h"
#include "base/units.h"

namespace mica {
namespace {

constexpr double kTerminalInterval = 0.2;  // seconds between two drawings of the bar
constexpr double kPlainInterval = 10.0;    // seconds between two plain lines
constexpr int kBarWidth = 28;              // characters
constexpr size_t kPhaseWidth = 22;         // columns
constexpr size_t kUsualColumns = 80;       // of a terminal that does not say

}  // namespace

void AddSeconds(SecondsByPhase& sums, const SecondsByPhase& phases) {
  for (const auto& [phase, seconds] : phases) {
    const auto sum =
        std::find_if(sums.begin(), sums.end(), [&name = phase](const auto& one) { return one.first == name; });
    if (sum == sums.end()) {
      sums.emplace_back(phase, seconds);
    } else {
      sum->second += seconds;
    }
  }
}

Progress::Progress(bool enabled)
    : enabled_(enabled && LogEnabled(LogLevel::kInfo)), terminal_(MovesCursor(STDERR_FILENO)) {}

Progress::~Progress() { WipeOpenLine(); }

void Progress::ReportTo(ProgressSink* sink) {
  const std::lock_guard<std::mutex> lock(mutex_);
  sink_ = sink;
}

void Progress::Begin(const std::string& phase, uint64_t total, const std::string& unit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  state_.phase = phase, state_.unit = unit, state_.detail.clear();
  state_.total = total, state_.done = 0;
  state_.began = shown_ = MonotonicSeconds();
  state_.running = true;
  Report(true);
}

void Progress::Advance(uint64_t units, const std::string& detail) {
  const std::lock_guard<std::mutex> lock(mutex_);
  state_.done += units;
  if (!detail.empty()) state_.detail = detail;
  const double now = MonotonicSeconds();
  if (now - shown_ >= (terminal_ ? kTerminalInterval : kPlainInterval)) {
    shown_ = now;
    Show(false);
  }
  Report(false);
}

void Progress::End() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!state_.running) return;
  Show(true);
  AddSeconds(state_.phase_seconds, {{state_.phase, MonotonicSeconds() - state_.began}});
  state_.running = false;
  Report(true);
}

void Progress::Figure(const std::string& name, double value) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (sink_ != nullptr) sink_->Figure(name, value);
}

SecondsByPhase Progress::PhaseSeconds() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return state_.phase_seconds;
}

void Progress::Show(bool final) {
  if (!enabled_) return;
  const double elapsed = std::max(1e-9, MonotonicSeconds() - state_.began);
  const double rate = static_cast<double>(state_.done) / elapsed;
  const double share =
      state_.total == 0 ? 1.0
                        : std::min(1.0, static_cast<double>(state_.done) / static_cast<double>(state_.total));
  const double left = state_.done == 0 ? 0 : (1 - share) * elapsed / std::max(share, 1e-9);
  const std::string time = final ? FormatDuration(elapsed) : "ETA " + FormatDuration(left);
  const std::string text = fmt::format("{:>3.0f} %  {}  {:.{}f} {}/s  {}", 100 * share, time, rate,
                                       rate < 10 ? 2 : 0, state_.unit, state_.detail);
  const std::string phase = Printable(state_.phase), facts = Printable(text);
  if (terminal_) {
    const int filled = static_cast<int>(share * kBarWidth);
    const std::string bar = std::string(filled, '#') + std::string(kBarWidth - filled, '.');
    // A line that reaches the last column would be broken, and then not be drawn over.
    const std::string line = Shortened(Padded(phase, kPhaseWidth, false) + " [" + bar + "] " + facts,
                                       TerminalColumns(STDERR_FILENO, kUsualColumns) - 1);
    std::fprintf(stderr, "\r\033[K%s%s", line.c_str(), final ? "\n" : "");
    SetOpenLine(!final);
  } else {
    std::fprintf(stderr, "%s: %s\n", phase.c_str(), facts.c_str());
  }
  std::fflush(stderr);
}

void Progress::Report(bool now) {
  if (sink_ != nullptr) sink_->Report(state_, now);
}

}  // namespace mica
