// What a device other than the processor does for Gram and BlockGram.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "device/tensor.h"

namespace mica {

// Sums of products of the columns of each block of `block` consecutive ones (the last block may be shorter);
// as Gram says otherwise.
class DeviceGram {
 public:
  virtual ~DeviceGram() = default;
  // x: [tokens, cols] on the device; weights: [tokens] on the host, checked, or empty.
  virtual void Add(ConstTensor x, std::span<const float> weights) = 0;
  // out[i, j] = factor * the sum of channel i and channel i / block * block + j, 0 where there is no such
  // channel. out: [cols, block] FP32 on the device.
  virtual void CopyScaled(double factor, Tensor out) const = 0;
  // The same as the last that is asked of the sums of products, whose memory goes back.
  virtual void TakeScaled(double factor, Tensor out) = 0;
  virtual double Sum(size_t i, size_t j) const = 0;  // of one block
  virtual std::vector<double> ColumnSums() const = 0;
  virtual std::vector<double> Diagonal() const = 0;

  // The values that sums cannot be taken of, in the first tokens added together that held any.
  struct Bad {
    size_t tokens = 0;                 // that were added; 0: there were none
    std::vector<uint32_t> not_finite;  // [cols] how many of a channel are NaN or infinite
    std::vector<uint32_t> largest;     // [cols] bits of the largest finite magnitude beyond the limit, or 0
  };
  // Waits for the sums.
  virtual Bad Found() const = 0;
};

std::unique_ptr<DeviceGram> NewDeviceGram(size_t cols, size_t block, Device device);

}  // namespace mica
