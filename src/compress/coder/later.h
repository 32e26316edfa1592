// Work that goes on beside what follows.
#pragma once

#include <functional>
#include <future>
#include <utility>

#include "base/threads.h"

namespace mica {

// On a thread of its own, which may use all others as well; with one thread when the result is asked for.
template <typename Work>
auto Later(Work work) {
  return std::async(Threads() > 1 ? std::launch::async : std::launch::deferred, std::move(work));
}

}  // namespace mica
