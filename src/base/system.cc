#include "base/system.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <ctime>
#include <fstream>
#include <limits>
#include <new>
#include <thread>

#include "base/error.h"

namespace mica {
namespace {

std::atomic<int> g_signal{0};

extern "C" void OnSignal(int signal) {
  if (g_signal.exchange(signal) != 0) ::_exit(128 + signal);
}

// The number after "key" in a /proc file of "key: number kB" lines, in bytes; 0 when absent.
uint64_t ProcBytes(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(key, 0) == 0) return std::stoull(line.substr(key.size())) * 1024;
  }
  return 0;
}

}  // namespace

uint64_t PeakResidentBytes() {
  if (const uint64_t peak = ProcBytes("/proc/self/status", "VmHWM:")) return peak;
  struct rusage usage;
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

void ResetPeakResidentBytes() { std::ofstream("/proc/self/clear_refs") << "5\n"; }

uint64_t AvailableMemoryBytes() {
  uint64_t available = ProcBytes("/proc/meminfo", "MemAvailable:");
  if (available == 0) available = std::numeric_limits<uint64_t>::max();
  std::ifstream limit_file("/sys/fs/cgroup/memory.max"), current_file("/sys/fs/cgroup/memory.current");
  uint64_t limit = 0, current = 0;
  if (limit_file >> limit && current_file >> current && limit > current)
    available = std::min(available, limit - current);
  return available;
}

bool HasAddressSpace(size_t bytes) {
  struct rlimit limit;
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return true;
  void* room =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (room == MAP_FAILED) return false;
  ::munmap(room, bytes);
  return true;
}

void RequireAddressSpace(size_t bytes) {
  if (!HasAddressSpace(bytes)) throw std::bad_alloc();
}

void KeepFreedMemory() {
#ifdef __GLIBC__
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);  // the most that glibc takes
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

std::string ProcessorName() {
  std::string model = "unknown processor";
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos) {
      model = line.substr(line.find(": ") + 2);
      break;
    }
  }
  return fmt::format("{}, {} processors", model, std::thread::hardware_concurrency());
}

std::string Version() { return MICA_VERSION; }
std::string Commit() { return MICA_COMMIT; }

std::string UtcTime() {
  const std::time_t now = std::time(nullptr);
  std::tm utc;
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

double MonotonicSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void PrepareStreams() {
  // open() gives the lowest free descriptor: in rising order it is the one that is missing. The directory
  // serves where there is no /dev/null, and cannot be read or written either.
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) != -1) continue;
    const int mode = descriptor == STDOUT_FILENO ? O_RDONLY : O_WRONLY;
    if (::open("/dev/null", mode) == -1) ::open("/", O_RDONLY | O_DIRECTORY);
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void CatchInterrupts() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void ForgetInterrupt() {
  if (g_signal == SIGINT) g_signal = 0;
}

bool InterruptRequested() { return g_signal != 0; }

void ThrowIfInterrupted() {
  if (g_signal != 0) throw Interrupted(g_signal == SIGINT ? "interrupted" : "terminated");
}

}  // namespace mica
