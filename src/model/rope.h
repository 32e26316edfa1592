// Rotary position embedding: the angle of each pair of channels at each position (Su et al. 2021), with the
// scalings of long-context models.
#pragma once

#include <cstddef>
#include <vector>

#include "base/matrix.h"
#include "model/config.h"

namespace mica {

// Radians per position of pair i, [head_dim / 2]: theta^(-2 i / head_dim), scaled as config.rope_scaling
// says: linear divides by the factor; llama3 divides wavelengths longer than original / low_freq_factor by
// the factor, keeps those shorter than original / high_freq_factor and blends between.
std::vector<double> RopeFrequencies(const ModelConfig& config);

// Cosines and sines of position * frequency, computed in double. A function of nothing but the configuration.
class RopeTable {
 public:
  RopeTable() = default;
  explicit RopeTable(const ModelConfig& config) : frequencies_(RopeFrequencies(config)) {}

  // From now on at least `positions` rows exist. Not thread-safe.
  void Extend(size_t positions);
  const float* cosines(size_t position) const { return cosines_.row(position); }  // [head_dim / 2]
  const float* sines(size_t position) const { return sines_.row(position); }      // [head_dim / 2]

 private:
  std::vector<double> frequencies_;
  Matrix<float> cosines_, sines_;  // [positions, head_dim / 2]
};

}  // namespace mica
