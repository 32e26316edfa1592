#include "base/map_guard.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

namespace mica {
namespace {

// What the handler may look at: it runs in the middle of anything, so nothing here takes a lock.
struct Slot {
  std::atomic<bool> taken = false;
  std::atomic<uintptr_t> begin = 0, end = 0;  // equal: guards nothing
  std::atomic<const char*> line = nullptr;
  std::atomic<size_t> length = 0;
};
constexpr size_t kSlots = 1024;
std::array<Slot, kSlots> g_slots;
std::atomic_flag g_spoken;

void Say(const char* text, size_t length) {
  while (length > 0) {
    const ssize_t written = ::write(STDERR_FILENO, text, length);
    if (written <= 0) return;
    text += written;
    length -= static_cast<size_t>(written);
  }
}

void OnBusError(int signal, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Slot& slot : g_slots) {
    if (address < slot.begin || address >= slot.end) continue;
    // Threads that read the same file come here together: one of them speaks, the others wait for the end.
    while (g_spoken.test_and_set()) ::pause();
    if (::isatty(STDERR_FILENO) != 0) Say("\n", 1);  // below the line that shows progress
    Say(slot.line, slot.length);
    ::_exit(1);
  }
  ::signal(signal, SIG_DFL);  // not ours: it comes again when this returns
}

void InstallHandler() {
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace

MapGuard::MapGuard(const void* begin, size_t bytes, const std::string& file)
    : slot_(kSlots),
      line_("mica: " + file +
            ": became shorter while it was read, or cannot be read from its disk; give a file that nobody is "
            "writing\n") {
  static std::once_flag installed;
  std::call_once(installed, InstallHandler);
  for (slot_ = 0; slot_ < kSlots; ++slot_) {
    bool free = false;
    if (g_slots[slot_].taken.compare_exchange_strong(free, true)) break;
  }
  if (slot_ == kSlots) return;
  Slot& slot = g_slots[slot_];
  slot.line = line_.data();
  slot.length = line_.size();
  slot.begin = reinterpret_cast<uintptr_t>(begin);
  slot.end = reinterpret_cast<uintptr_t>(begin) + (bytes + 4095) / 4096 * 4096;
}

MapGuard::~MapGuard() {
  if (slot_ == kSlots) return;
  Slot& slot = g_slots[slot_];
  slot.end = 0;
  slot.begin = 0;
  slot.taken = false;
}

}  // namespace mica
