// The weights of one decoder layer, each read from the checkpoint once, for all who need them: the layer that
// computes, its transposed matrices, the solver's target.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "device/array.h"
#include "device/device.h"
#include "model/weights.h"

namespace mica {

class LayerWeights {
 public:
  // Reads norms and biases; a matrix is read when it is first asked for, onto `device`. Keeps the address of
  // `weights`.
  LayerWeights(const ModelWeights& weights, size_t index, Device device = Device::Cpu());

  const ModelConfig& config() const { return weights_->config(); }
  size_t index() const { return index_; }
  // [config().NormWidth(norm)], or empty when the model has none.
  const std::vector<float>& norm(NormKind norm) const { return norms_[static_cast<size_t>(norm)]; }
  // [rows], or empty when the linear layer has none.
  const std::vector<float>& bias(LinearKind kind) const { return biases_[static_cast<size_t>(kind)]; }

  // [rows, cols] FP32 on the device, kept until it is taken: 4 bytes a weight for as long.
  const Array& Linear(LinearKind kind);
  // Reads all of them now where the device is a GPU, for which another thread reads ahead.
  void ReadAhead();
  // The same for its last user, who owns it from now on; nobody may ask for it again.
  Array Take(LinearKind kind);

 private:
  const ModelWeights* weights_;
  size_t index_;
  std::array<std::vector<float>, kNormKinds.size()> norms_;
  std::array<std::vector<float>, kLinearKinds.size()> biases_;
  Device device_;
  std::array<Array, kLinearKinds.size()> linears_;
  std::array<bool, kLinearKinds.size()> taken_ = {};
};

}  // namespace mica
