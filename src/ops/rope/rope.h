// Rotary position embedding (Su et al. 2021): the angles, and the way back from heads to channels.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "base/matrix.h"
#include "device/array.h"
#include "device/device.h"
#include "device/tensor.h"

namespace mica {

// Cosines and sines of position * frequency, each times the position's amplitude, computed in double. A function
// of nothing but those.
class RopeTable {
 public:
  using Amplitude = std::function<double(size_t position)>;

  RopeTable() = default;
  // Radians per position of each pair of channels; for work on `device`.
  explicit RopeTable(std::vector<double> frequencies, Device device = Device::Cpu())
      : RopeTable(std::move(frequencies), {}, device) {}
  // amplitude: none is 1.
  RopeTable(std::vector<double> frequencies, Amplitude amplitude, Device device)
      : frequencies_(std::move(frequencies)), amplitude_(std::move(amplitude)), device_(device) {}

  // Of a head's channels, the first that turn: pair i is channels i and channels() / 2 + i.
  size_t channels() const { return 2 * frequencies_.size(); }
  // From now on at least `positions` rows exist. Not thread-safe.
  void Extend(size_t positions);
  size_t positions() const { return cosines_.rows(); }
  const float* cosines(size_t position) const { return cosines_.row(position); }  // [channels() / 2]
  const float* sines(size_t position) const { return sines_.row(position); }      // [channels() / 2]
  // All of them on the device, [positions, channels() / 2] FP32.
  ConstTensor cosines() const { return on_device_[0].view(); }
  ConstTensor sines() const { return on_device_[1].view(); }

 private:
  std::vector<double> frequencies_;
  Amplitude amplitude_;
  Device device_;
  Matrix<float> cosines_, sines_;   // [positions, channels() / 2]
  std::array<Array, 2> on_device_;  // the same where the device is not the processor
};

// by_head[h * tokens + t, i] = x[t, h * head_dim + i], with a table turned by the angle of t's position in its
// window of `window` tokens, rounded once to the type of by_head. x: [tokens, heads * head_dim] FP32; by_head:
// [heads * tokens, head_dim] FP32 or BF16; rope may be null.
void SplitHeads(ConstTensor x, const RopeTable* rope, size_t window, Tensor by_head);

// Its transpose: out[t, h * head_dim + i] = by_head[h * tokens + t, i], turned back. All FP32.
void JoinHeads(ConstTensor by_head, const RopeTable* rope, size_t window, Tensor out);

}  // namespace mica
