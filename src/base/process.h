// Which process something was done by, told apart from others that have or will have its number.
#pragma once

#include <cstdint>
#include <string>

namespace mica {

struct ProcessIdentity {
  uint64_t pid = 0;
  uint64_t started = 0;  // clock ticks after the machine's start; 0: not known
  std::string boot;      // of that start, as the kernel names it; empty: not known
  std::string host;
};
ProcessIdentity ThisProcess();

enum class ProcessState {
  kRunning,
  kGone,      // ended, or another process has its number by now
  kElsewhere  // of another host, where it cannot be looked for
};
// A process of which only the number is known counts as gone: nothing shows that it is still the same.
ProcessState StateOf(const ProcessIdentity& process);

}  // namespace mica
