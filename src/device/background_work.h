// Work of a device that gives way to other work.
#pragma once

#include "device/cuda.h"

namespace mica {

// While it lives, what its thread gives a CUDA device gives way to what other threads give it: large products
// beside a chain of small steps, which would wait for room at each. Nothing on the processor.
class BackgroundWork {
 public:
  explicit BackgroundWork(Device device) : device_(device) {
    if (device_.is_cuda()) BeginBackground(device_);
  }
  ~BackgroundWork() {
    if (device_.is_cuda()) EndBackground(device_);
  }
  BackgroundWork(const BackgroundWork&) = delete;
  BackgroundWork& operator=(const BackgroundWork&) = delete;

 private:
  Device device_;
};

}  // namespace mica
