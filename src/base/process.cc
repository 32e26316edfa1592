#include "base/process.h"

#include <unistd.h>

#include <fstream>
#include <sstream>

#include "base/system.h"

namespace mica {
namespace {

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string Boot() { return FirstLine("/proc/sys/kernel/random/boot_id"); }

// Of a live process, 0 otherwise. /proc/PID/stat is "PID (NAME) STATE ...", field 22 the start; NAME may hold
// blanks and parentheses.
uint64_t StartOf(uint64_t pid) {
  const std::string stat = FirstLine("/proc/" + std::to_string(pid) + "/stat");
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(stat.substr(name_end + 1));
  std::string state, skipped;
  uint64_t started = 0;
  fields >> state;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> started;
  return fields && state != "Z" && state != "X" ? started : 0;
}

}  // namespace

ProcessIdentity ThisProcess() {
  const auto pid = static_cast<uint64_t>(::getpid());
  return {pid, StartOf(pid), Boot(), HostName()};
}

ProcessState StateOf(const ProcessIdentity& process) {
  if (process.pid == 0 || process.started == 0 || process.boot.empty()) return ProcessState::kGone;
  if (process.host != HostName()) return ProcessState::kElsewhere;
  const bool same = process.boot == Boot() && process.started == StartOf(process.pid);
  return same ? ProcessState::kRunning : ProcessState::kGone;
}

}  // namespace mica
