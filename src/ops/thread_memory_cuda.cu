#include <algorithm>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "device/array.h"
#include "device/cuda_check.h"
#include "ops/thread_memory_cuda.h"

namespace mica::cuda {
namespace {

// What a use has from the beginning, so that it seldom grows.
constexpr size_t kFirstBytes = size_t{4} << 20;

// The memory of one thread, on one device.
struct Held {
  std::map<Use, std::vector<Array>> of_use;  // the last is in use
};
struct Pool {
  std::mutex mutex;
  std::map<int, std::vector<Held>> free;
};
// Never destroyed, as the driver may be gone when the program ends.
Pool& ThePool() {
  static Pool* const pool = new Pool;
  return *pool;
}

class OfThread {
 public:
  ~OfThread() {
    for (auto& [index, held] : held_) {
      // The next thread has another queue, so that nothing may be under way; a failure has been reported.
      cudaStreamSynchronize(StreamOn(Device::Cuda(index)));
      const std::lock_guard<std::mutex> lock(ThePool().mutex);
      ThePool().free[index].push_back(std::move(held));
    }
  }
  Held& On(Device device) {
    const auto found = held_.find(device.index());
    if (found != held_.end()) return found->second;
    Held held;
    {
      const std::lock_guard<std::mutex> lock(ThePool().mutex);
      std::vector<Held>& free = ThePool().free[device.index()];
      if (!free.empty()) {
        held = std::move(free.back());
        free.pop_back();
      }
    }
    return held_.emplace(device.index(), std::move(held)).first->second;
  }

 private:
  std::map<int, Held> held_;
};

}  // namespace

void* ThreadMemory(Device device, Use use, size_t bytes) {
  thread_local OfThread memory;
  std::vector<Array>& arrays = memory.On(device).of_use[use];
  if (arrays.empty() || arrays.back().cols() < bytes) {
    // Twice as much as before: all that stays behind is then less than the last.
    const size_t before = arrays.empty() ? kFirstBytes / 2 : arrays.back().cols();
    arrays.emplace_back(1, std::max(bytes, 2 * before), DType::kU8, device);
    FillZero(arrays.back().view());
  }
  return arrays.back().view().data;
}

}  // namespace mica::cuda
