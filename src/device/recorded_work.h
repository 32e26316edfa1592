// Work of a device that is given to it again and again, all of it at once.
#pragma once

#include <functional>
#include <utility>

#include "device/cuda.h"

namespace mica {

// Owns what RecordWork gives. Move-only.
class RecordedWork {
 public:
  RecordedWork() = default;
  RecordedWork(Device device, const std::function<void()>& work)
      : device_(device), recorded_(RecordWork(device, work)) {}
  ~RecordedWork() {
    if (recorded_ != nullptr) ForgetWork(device_, recorded_);
  }
  RecordedWork(RecordedWork&& other) noexcept
      : device_(other.device_), recorded_(std::exchange(other.recorded_, nullptr)) {}
  RecordedWork& operator=(RecordedWork&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(recorded_, other.recorded_);
    return *this;
  }
  bool empty() const { return recorded_ == nullptr; }
  void Replay() const { ReplayWork(device_, recorded_); }

 private:
  Device device_;
  void* recorded_ = nullptr;
};

}  // namespace mica
