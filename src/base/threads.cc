#include "base/threads.h"

#include <sched.h>

#include <atomic>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

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

#ifdef _OPENMP
// OpenMP ends the program when it cannot start a thread. So as many as it will be asked for are started here
// first, all at once, which is an Error when it fails; and then its own, which it keeps.
void StartThreads(int threads) {
  static std::mutex mutex;
  static int started = 1;
  const std::lock_guard<std::mutex> lock(mutex);
  if (threads <= started) return;
  std::vector<std::thread> trial;
  std::atomic<bool> end{false};
  std::string failure;
  try {
    while (static_cast<int>(trial.size()) + 1 < threads) {
      trial.emplace_back([&end] { end.wait(false); });
    }
  } catch (const std::system_error& error) {
    failure = error.code().message();
  } catch (const std::bad_alloc&) {
    failure = "out of memory";
  }
  const size_t count = trial.size();
  end = true;
  end.notify_all();
  for (std::thread& thread : trial) thread.join();
  if (!failure.empty()) {
    Fail(
        "thread {} of {} cannot be started ({}); use fewer --threads, or raise the limits (ulimit -u, ulimit "
        "-v)",
        count + 2, threads, failure);
  }
  started = threads;
#pragma omp parallel num_threads(threads)
  {}
}
#endif

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
    StartThreads(threads);
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
