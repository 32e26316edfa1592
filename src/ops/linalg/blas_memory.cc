#include "ops/linalg/blas_memory.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "base/system.h"
#include "base/threads.h"

// OpenBLAS's own; absent where another library takes its place.
extern "C" {
__attribute__((weak)) void* blas_memory_alloc(int position);
__attribute__((weak)) void blas_memory_free(void* buffer);
}

namespace mica {
namespace {

constexpr size_t kBufferBytes = size_t{129} << 20;  // 128 MiB and a little, of address space
constexpr size_t kRestBytes = size_t{32} << 20;     // what the program takes before it can say what is wrong

#ifdef __linux__
// The number that the environment gives `name`, 0 when it gives none.
int NumberIn(char** environment, const char* name) {
  const size_t length = std::strlen(name);
  for (; environment != nullptr && *environment != nullptr; ++environment) {
    if (std::strncmp(*environment, name, length) == 0 && (*environment)[length] == '=')
      return std::atoi(*environment + length + 1);
  }
  return 0;
}

// OpenBLAS takes a buffer for each processor when it is loaded, before main() begins: where the address space
// is limited (ulimit -v) and they do not fit, the program would hang there. Runs before any library's own
// initialisation, so it calls nothing that needs one.
void CheckRoom(int, char**, char** environment) {
  cpu_set_t set;
  int buffers = ::sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  for (const char* name : {"OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"}) {
    const int number = NumberIn(environment, name);
    if (number > 0) {
      buffers = std::min(buffers, number);
      break;
    }
  }
  if (HasAddressSpace(static_cast<size_t>(buffers) * kBufferBytes + kRestBytes)) return;
  constexpr const char kMessage[] =
      "mica: out of memory: the limit of address space (ulimit -v) is too low to begin; raise it, or set "
      "OMP_NUM_THREADS=1\n";
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, kMessage, sizeof(kMessage) - 1);
  ::_exit(1);
}

__attribute__((section(".preinit_array"), used)) void (*const g_check_room)(int, char**, char**) = CheckRoom;
#endif

}  // namespace

void ReserveBlasBuffers() {
  static std::mutex mutex;
  static size_t reserved = 0;
  if (blas_memory_alloc == nullptr || blas_memory_free == nullptr) return;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto wanted = static_cast<size_t>(Threads());
  if (wanted <= reserved) return;
  RequireAddressSpace((wanted - reserved) * kBufferBytes);
  std::vector<void*> buffers(wanted);
  for (void*& buffer : buffers) buffer = blas_memory_alloc(0);
  for (void* buffer : buffers) blas_memory_free(buffer);
  reserved = wanted;
}

}  // namespace mica
