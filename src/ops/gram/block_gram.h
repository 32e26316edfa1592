// Gram matrices of neighbouring columns only: the products behind moments of gradients.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "device/tensor.h"
#include "ops/gram/device_gram.h"
#include "ops/gram/gram.h"

namespace mica {

// A Gram (ops/gram/gram.h) for each block of `block` consecutive columns of a stream of tokens; the last
// block may be shorter. All of them are computed at once on a CUDA device. Memory: 4 to 8 cols block bytes on
// the processor, there 8 block rounded up to tiles of 128.
class BlockGram {
 public:
  BlockGram(size_t cols, size_t block, Device device = Device::Cpu());

  // As Gram::Add, without weights. x: [tokens, cols] FP32 or BF16 on the device.
  void Add(ConstTensor x);

  size_t cols() const { return cols_; }
  size_t block() const { return block_; }
  std::vector<double> Diagonal() const;  // [cols] sum_t x_tc^2
  // out[i, j] = factor * sum_t x_ti x_ts, s the j-th column of the block that i is in, 0 beyond a short one.
  // out: [cols, block] FP32 on the processor or the device.
  void CopyScaled(double factor, Tensor out) const;
  // out[i, j] as that with the factor 1 on the device of the sums, whose memory goes back: nothing but Check may be called
  // afterwards, which finds what cannot be summed. Does not wait for a CUDA device.
  void TakeSums(Tensor out);
  // Throws Error as Gram::Add when values could not be summed; waits for them.
  void Check() const;

 private:
  size_t cols_, block_;
  Device device_;
  std::unique_ptr<DeviceGram> there_;  // instead of grams_, on other devices than the processor
  std::vector<Gram> grams_;
};

}  // namespace mica
