#include "base/threads.h"

#include <sched.h>

#include <atomic>
#include <exception>
#include <mutex>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "base/error.h"

namespace mica {
namespace {

int Processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

std::atomic<int> g_threads{0};

}  // namespace

void SetThreads(int threads) {
  if (threads < 0 || threads > 1024) Fail("--threads is {}, expected 0 (one per processor) to 1024", threads);
  g_threads = threads == 0 ? Processors() : threads;
#ifdef _OPENMP
  omp_set_num_threads(g_threads);
#endif
}

int Threads() {
  if (g_threads == 0) SetThreads(0);
  return g_threads;
}

void ParallelFor(size_t count, const std::function<void(size_t)>& body) {
  const int threads = Threads();
#ifdef _OPENMP
  if (count > 1 && threads > 1 && !omp_in_parallel()) {
    std::atomic<size_t> next{0};
    std::exception_ptr failure;
    std::mutex mutex;
#pragma omp parallel num_threads(threads)
    {
      for (size_t i = next++; i < count; i = next++) {
        try {
          body(i);
        } catch (...) {
          const std::lock_guard<std::mutex> lock(mutex);
          if (!failure) failure = std::current_exception();
          next = count;
        }
      }
    }
    if (failure) std::rethrow_exception(failure);
    return;
  }
#endif
  for (size_t i = 0; i < count; ++i) body(i);
}

}  // namespace mica
