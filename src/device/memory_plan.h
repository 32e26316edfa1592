// What a computation will hold of a device's memory, known before it begins.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "device/device.h"

namespace mica {

class MemoryPlan {
 public:
  explicit MemoryPlan(Device device) : device_(device) {}

  void Add(const char* what, uint64_t bytes) { items_.emplace_back(what, bytes); }
  Device device() const { return device_; }
  uint64_t total() const;
  // "4.1 GB of the 80 GB of NVIDIA H100: the layers' weights 1.3 GB, ...", the largest first.
  std::string Describe() const;
  // Throws Error when the device has less memory free than that. advice: what to do then, "use a smaller
  // --seqlen".
  void Check(const std::string& work, const std::string& advice) const;

 private:
  Device device_;
  std::vector<std::pair<const char*, uint64_t>> items_;
};

// Bytes of the device's memory that this process may still take.
uint64_t AvailableMemory(Device device);

}  // namespace mica
