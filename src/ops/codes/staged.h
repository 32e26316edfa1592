// Small tables of many kinds that a kernel reads, made on the host in one piece of memory and copied at once.
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "device/array.h"
#include "device/cuda.h"

namespace mica {

class Staged {
 public:
  // Where `count` values stand.
  template <typename T>
  struct Place {
    size_t offset = 0, count = 0;
  };

  // All places are taken before the first is used.
  template <typename T>
  Place<T> Take(size_t count) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    const Place<T> place{bytes_, count};
    bytes_ = (bytes_ + count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return place;
  }
  void Allocate(Device device) {
    device_ = Array(1, bytes_, DType::kU8, device);
    host_.resize(bytes_);
  }
  template <typename T>
  std::span<T> Host(Place<T> place) {
    MICA_CHECK(place.offset + place.count * sizeof(T) <= host_.size());
    return {reinterpret_cast<T*>(host_.data() + place.offset), place.count};
  }
  // On the device, what the host has at the time of Upload.
  template <typename T>
  const T* OnDevice(Place<T> place) const {
    return reinterpret_cast<const T*>(device_.view().data + place.offset);
  }
  void Upload() { UploadBytes(device_.device(), device_.view().data, host_.data(), bytes_); }

 private:
  static constexpr size_t kAlignment = 16;
  size_t bytes_ = 0;
  std::vector<std::byte> host_;  // as aligned as memory of malloc is
  Array device_;
};

// Bytes on a device with `after` bytes behind them that may be read.
inline Array Uploaded(Device device, std::span<const std::byte> bytes, size_t after) {
  Array copy(1, bytes.size() + after, DType::kU8, device);
  if (!bytes.empty()) UploadBytes(device, copy.view().data, bytes.data(), bytes.size());
  return copy;
}

}  // namespace mica
