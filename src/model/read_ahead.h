// Layers in order, the next one read while the current one computes.
#pragma once

#include <cstddef>
#include <functional>
#include <future>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/system.h"
#include "device/cuda.h"
#include "device/device.h"

namespace mica {

// Calls read(0), read(1), .. read(count - 1): what each returns is what Next() returns. Where a GPU computes,
// another thread reads one ahead, on its own queue of the device; on a processor, whose threads all compute,
// it is read when it is asked for. `read` must bear that it runs beside the thread that calls Next.
template <typename Layer>
class ReadAhead {
 public:
  using Read = std::function<std::unique_ptr<Layer>(size_t index)>;

  ReadAhead(size_t count, Device device, Read read) : count_(count), device_(device), read_(std::move(read)) {
    Begin();
  }
  ~ReadAhead() {
    if (next_.valid()) next_.wait();
    if (index_ > 0 && device_.is_cuda()) LogDebug("{} layers read, {:.2f} s waited for them", index_, waited_);
  }
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  std::unique_ptr<Layer> Next() {
    MICA_CHECK(index_ < count_);
    if (!next_.valid()) return read_(index_++);
    const double since = MonotonicSeconds();
    std::unique_ptr<Layer> layer = next_.get();
    waited_ += MonotonicSeconds() - since;
    ++index_;
    Begin();
    return layer;
  }

 private:
  void Begin() {
    if (!device_.is_cuda() || index_ == count_) return;
    next_ = std::async(std::launch::async, [this, index = index_] {
      std::unique_ptr<Layer> layer = read_(index);
      Synchronize(device_);  // another thread goes on with it
      return layer;
    });
  }

  const size_t count_;
  const Device device_;
  const Read read_;
  size_t index_ = 0;
  double waited_ = 0;  // seconds
  std::future<std::unique_ptr<Layer>> next_;  // of layer index_
};

}  // namespace mica
