// Progress of a long piece of work: a bar with rate and time left on a terminal, a plain line now and then
// elsewhere, nothing where the log level hides information; and reports to whoever keeps a status of it.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace mica {

// Seconds of wall clock by phase, in the order in which the phases first ended.
using SecondsByPhase = std::vector<std::pair<std::string, double>>;
// Adds each phase's seconds to those of the same name in `sums`; phases that it does not have go to its end.
void AddSeconds(SecondsByPhase& sums, const SecondsByPhase& phases);

// How far a piece of work is.
struct ProgressState {
  std::string phase;             // that goes on or, while not running, ended last
  std::string unit;              // "tokens"
  std::string detail;            // where in the phase: "layer 2/8"
  uint64_t done = 0;             // units
  uint64_t total = 0;            // units
  bool running = false;          // between Begin and End
  double began = 0;              // when the phase did, MonotonicSeconds()
  SecondsByPhase phase_seconds;  // of ended phases
};

// Is told of the progress of a piece of work, from any thread, one call at a time.
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  // `now`: a phase begins or ends; else there may be many reports in a second.
  virtual void Report(const ProgressState& state, bool now) = 0;
  // A figure that has been found on the way, such as a text's perplexity.
  virtual void Figure(const std::string& name, double value) = 0;
};

// Thread-safe. One phase at a time: Begin, any number of Advance, End.
class Progress {
 public:
  // `enabled` false prints nothing (tests, --json).
  explicit Progress(bool enabled = true);
  ~Progress();

  // From now on `sink` is told as well; it must outlive this.
  void ReportTo(ProgressSink* sink);

  // Starts a phase of `total` units ("tokens", "layers").
  void Begin(const std::string& phase, uint64_t total, const std::string& unit);
  // `detail` is shown behind the bar ("layer 3/40").
  void Advance(uint64_t units, const std::string& detail = "");
  void End();
  // For the sink.
  void Figure(const std::string& name, double value);
  // Seconds spent in each ended phase, in order: {"calibrate", 12.3}, ...
  SecondsByPhase PhaseSeconds() const;

 private:
  void Show(bool final);
  void Report(bool now);

  mutable std::mutex mutex_;
  bool enabled_;
  bool terminal_;
  ProgressSink* sink_ = nullptr;
  ProgressState state_;
  double shown_ = 0;
};

}  // namespace mica
