#include "device/array.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/error.h"
#include "device/cuda.h"

namespace mica {
namespace {

std::byte* Allocate(Device device, size_t bytes) {
  if (device.is_cuda()) return static_cast<std::byte*>(AllocateOnDevice(device, bytes));
  void* memory = std::aligned_alloc(64, std::max<size_t>(64, (bytes + 63) / 64 * 64));
  if (memory == nullptr) throw std::bad_alloc();
  return static_cast<std::byte*>(memory);
}

}  // namespace

void Array::Free::operator()(std::byte* memory) const {
  if (device.is_cuda()) {
    FreeOnDevice(device, memory, bytes);
  } else if (pinned) {
    FreePinned(memory, bytes);
  } else {
    std::free(memory);
  }
}

void Array::Resize(size_t rows, size_t cols, DType dtype, Device device) {
  const size_t bytes = rows * cols * DTypeBytes(dtype);
  const Free& held = memory_.get_deleter();
  if (memory_ == nullptr || held.bytes < bytes || held.device != device) {
    memory_.reset();  // never two at once
    memory_ = std::unique_ptr<std::byte, Free>(Allocate(device, bytes), Free(device, bytes));
  }
  rows_ = rows;
  cols_ = cols;
  dtype_ = dtype;
}

Array Array::Pinned(size_t rows, size_t cols, DType dtype) {
  Array array;
  const size_t bytes = rows * cols * DTypeBytes(dtype);
  array.memory_ = std::unique_ptr<std::byte, Free>(static_cast<std::byte*>(AllocatePinned(bytes)),
                                                   Free(Device::Cpu(), bytes, true));
  array.rows_ = rows;
  array.cols_ = cols;
  array.dtype_ = dtype;
  return array;
}

Array NewResting(size_t rows, size_t cols, DType dtype, Device device, Device rest) {
  return device.is_cuda() && !rest.is_cuda() ? Array::Pinned(rows, cols, dtype)
                                             : Array(rows, cols, dtype, rest);
}

void Copy(ConstTensor from, Tensor to) {
  MICA_CHECK(from.rows == to.rows);
  MICA_CHECK(from.cols == to.cols);
  MICA_CHECK(from.dtype == to.dtype);
  if (from.empty()) return;
  const size_t value = DTypeBytes(from.dtype), width = from.cols * value;
  if (from.device.is_cuda() || to.device.is_cuda()) {
    CopyBytes(to.device, to.data, to.stride * value, from.device, from.data, from.stride * value, width,
              from.rows);
    return;
  }
  for (size_t r = 0; r < from.rows; ++r)
    std::memmove(to.data + r * to.stride * value, from.data + r * from.stride * value, width);
}

Array CopyTo(Device device, ConstTensor from) {
  Array copy(from.rows, from.cols, from.dtype, device);
  Copy(from, copy.view());
  return copy;
}

void FillZero(Tensor out) {
  const size_t value = DTypeBytes(out.dtype), width = out.cols * value;
  if (out.empty()) return;
  if (out.device.is_cuda() && out.stride == out.cols) {
    FillBytes(out.device, out.data, 0, width * out.rows);
    return;
  }
  for (size_t r = 0; r < out.rows; ++r) {
    std::byte* row = out.data + r * out.stride * value;
    if (out.device.is_cuda()) {
      FillBytes(out.device, row, 0, width);
    } else {
      std::memset(row, 0, width);
    }
  }
}

}  // namespace mica
