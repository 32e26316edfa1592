// Values that live on a device: the owner behind tensors.
#pragma once

#include <cstddef>
#include <memory>

#include "base/dtype.h"
#include "base/matrix.h"
#include "device/device.h"
#include "device/tensor.h"

namespace mica {

// Owns [rows, cols] values of one dtype on one device, dense, aligned to 64 bytes at least, uninitialised
// until written. Move-only.
class Array {
 public:
  Array() = default;
  Array(size_t rows, size_t cols, DType dtype, Device device = Device::Cpu()) {
    Resize(rows, cols, dtype, device);
  }

  // One on the processor, in memory that copies to and from CUDA devices take at full speed; memory of the
  // same size that was freed before is taken again.
  static Array Pinned(size_t rows, size_t cols, DType dtype);

  // Gives the array this shape, type and place; contents are lost. Memory is taken only when it must grow or
  // move.
  void Resize(size_t rows, size_t cols, DType dtype, Device device = Device::Cpu());
  Tensor view() { return {memory_.get(), rows_, cols_, cols_, dtype_, device()}; }
  ConstTensor view() const { return {memory_.get(), rows_, cols_, cols_, dtype_, device()}; }
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }
  Device device() const { return memory_.get_deleter().device; }
  bool empty() const { return rows_ == 0 || cols_ == 0; }

 private:
  struct Free {
    Free() {}
    Free(Device device_, size_t bytes_, bool pinned_ = false)
        : device(device_), bytes(bytes_), pinned(pinned_) {}
    Device device;
    size_t bytes = 0;
    bool pinned = false;
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t rows_ = 0, cols_ = 0;
  DType dtype_ = DType::kF32;
};

// Values that `device` works on, to lie on `rest` meanwhile: there or, where it lacks the room, on the
// processor.
Array NewResting(size_t rows, size_t cols, DType dtype, Device device, Device rest);
// Copies values of one type and shape, whatever devices they are on. To or from the processor it is complete
// on return.
void Copy(ConstTensor from, Tensor to);
// A dense copy on a device.
Array CopyTo(Device device, ConstTensor from);
// Every value 0.
void FillZero(Tensor out);

}  // namespace mica
