// Progress of a long piece of work: a bar with rate and time left on a terminal, a plain line now and then
// elsewhere, and optionally a status file that `mica status` reads from another terminal.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <string>

#include "base/json.h"

namespace mica {

// Thread-safe. One phase at a time: Begin, any number of Advance, End.
class Progress {
 public:
  // `enabled` false prints nothing (tests, --json).
  explicit Progress(bool enabled = true);
  ~Progress();

  // From now on the state is also written (atomically, at most once a second) to `path` as JSON: phase, done,
  // total, unit, seconds, seconds_left, peak_memory_bytes, pid, updated, and every key set by Note.
  void WriteStatusTo(const std::filesystem::path& path);

  // Starts a phase of `total` units ("tokens", "layers").
  void Begin(const std::string& phase, uint64_t total, const std::string& unit);
  // `detail` is shown behind the bar ("layer 3/40").
  void Advance(uint64_t units, const std::string& detail = "");
  void End();
  // Sets a key of the status file ("layer", "last_ppl").
  void Note(const std::string& key, Json value);
  // Seconds spent in each ended phase, in order: {"calibrate": 12.3, ...}.
  Json PhaseSeconds() const;

 private:
  void Show(bool final);
  void WriteStatus(bool now);

  mutable std::mutex mutex_;
  bool enabled_;
  bool terminal_;
  std::filesystem::path status_path_;
  Json notes_ = Json::object();
  Json phase_seconds_ = Json::object();
  std::string phase_, unit_, detail_;
  uint64_t done_ = 0, total_ = 0;
  double began_ = 0, shown_ = 0, status_written_ = 0;
  bool running_ = false;
};

}  // namespace mica
