// Rotary position embedding (Su et al. 2021): the angles, and the way back from heads to channels.
#pragma once

#include <array>
#include <cstddef>
#include <utility>
#include <vector>

#include "base/matrix.h"
#include "device/array.h"
#include "device/device.h"
#include "device/tensor.h"

namespace mica {

// Cosines and sines of position * frequency, computed in double. A function of nothing but the frequencies.
class RopeTable {
 public:
  RopeTable() = default;
  // Radians per position of each pair of channels, [head_dim / 2]; for work on `device`.
  explicit RopeTable(std::vector<double> frequencies, Device device = Device::Cpu())
      : frequencies_(std::move(frequencies)), device_(device) {}

  // From now on at least `positions` rows exist. Not thread-safe.
  void Extend(size_t positions);
  size_t positions() const { return cosines_.rows(); }
  const float* cosines(size_t position) const { return cosines_.row(position); }  // [head_dim / 2]
  const float* sines(size_t position) const { return sines_.row(position); }      // [head_dim / 2]
  // All of them on the device, [positions, head_dim / 2] FP32.
  ConstTensor cosines() const { return on_device_[0].view(); }
  ConstTensor sines() const { return on_device_[1].view(); }

 private:
  std::vector<double> frequencies_;
  Device device_;
  Matrix<float> cosines_, sines_;   // [positions, head_dim / 2]
  std::array<Array, 2> on_device_;  // the same where the device is not the processor
};

// The transpose of the split into heads (ops/product/projection.h): out[t, h * head_dim + i] = by_head[h *
// tokens + t, i], with a table turned back by the angle of t's position in its window of `window` tokens.
// by_head: [heads * tokens, head_dim] FP32; out: [tokens, heads * head_dim] FP32; rope may be null.
void JoinHeads(ConstTensor by_head, const RopeTable* rope, size_t window, Tensor out);

}  // namespace mica
