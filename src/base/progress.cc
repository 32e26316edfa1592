#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/file.h"
#include "base/system.h"
#include "base/units.h"

namespace mica {
namespace {

constexpr double kTerminalInterval = 0.2;  // seconds between two drawings of the bar
constexpr double kPlainInterval = 10.0;    // seconds between two plain lines
constexpr double kStatusInterval = 1.0;    // seconds between two writings of the status file
constexpr int kBarWidth = 28;              // characters

}  // namespace

Progress::Progress(bool enabled) : enabled_(enabled), terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (running_ && enabled_ && terminal_) std::fputc('\n', stderr);
}

void Progress::WriteStatusTo(const std::filesystem::path& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  status_path_ = path;
}

void Progress::Begin(const std::string& phase, uint64_t total, const std::string& unit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  phase_ = phase, unit_ = unit, detail_.clear();
  total_ = total, done_ = 0;
  began_ = shown_ = MonotonicSeconds();
  running_ = true;
  WriteStatus(true);
}

void Progress::Advance(uint64_t units, const std::string& detail) {
  const std::lock_guard<std::mutex> lock(mutex_);
  done_ += units;
  if (!detail.empty()) detail_ = detail;
  const double now = MonotonicSeconds();
  if (now - shown_ >= (terminal_ ? kTerminalInterval : kPlainInterval)) {
    shown_ = now;
    Show(false);
  }
  WriteStatus(false);
}

void Progress::End() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!running_) return;
  Show(true);
  const double seconds = MonotonicSeconds() - began_;
  phase_seconds_[phase_] = phase_seconds_.value(phase_, 0.0) + seconds;
  running_ = false;
  WriteStatus(true);
}

void Progress::Note(const std::string& key, Json value) {
  const std::lock_guard<std::mutex> lock(mutex_);
  notes_[key] = std::move(value);
  WriteStatus(true);  // notes are rare, and the last one of a run ("done") must not be lost
}

Json Progress::PhaseSeconds() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return phase_seconds_;
}

void Progress::Show(bool final) {
  if (!enabled_) return;
  const double elapsed = std::max(1e-9, MonotonicSeconds() - began_);
  const double rate = static_cast<double>(done_) / elapsed;
  const double share =
      total_ == 0 ? 1.0 : std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_));
  const double left = done_ == 0 ? 0 : (1 - share) * elapsed / std::max(share, 1e-9);
  const std::string time = final ? FormatDuration(elapsed) : "ETA " + FormatDuration(left);
  const std::string text = fmt::format("{:>3.0f} %  {}  {:.{}f} {}/s  {}", 100 * share, time, rate,
                                       rate < 10 ? 2 : 0, unit_, detail_);
  if (terminal_) {
    const int filled = static_cast<int>(share * kBarWidth);
    const std::string bar = std::string(filled, '#') + std::string(kBarWidth - filled, '.');
    std::fprintf(stderr, "\r\033[K%-22s [%s] %s%s", phase_.c_str(), bar.c_str(), text.c_str(),
                 final ? "\n" : "");
  } else {
    std::fprintf(stderr, "%s: %s\n", phase_.c_str(), text.c_str());
  }
  std::fflush(stderr);
}

void Progress::WriteStatus(bool now) {
  if (status_path_.empty()) return;
  const double time = MonotonicSeconds();
  if (!now && time - status_written_ < kStatusInterval) return;
  status_written_ = time;
  Json status = notes_;
  const double elapsed = time - began_;
  status["phase"] = phase_;
  status["running"] = running_;
  status["done"] = done_;
  status["total"] = total_;
  status["unit"] = unit_;
  status["detail"] = detail_;
  status["seconds"] = elapsed;
  if (done_ > 0 && total_ >= done_) {
    status["seconds_left"] = elapsed * static_cast<double>(total_ - done_) / static_cast<double>(done_);
  }
  status["phase_seconds"] = phase_seconds_;
  status["peak_memory_bytes"] = PeakResidentBytes();
  status["pid"] = ::getpid();
  status["updated"] = UtcTime();
  WriteJson(status_path_, status);
}

}  // namespace mica
