// Rotary position embedding: how fast each pair of channels turns (Su et al. 2021), with the scalings of
// long-context models. The angles themselves are ops/rope's.
#pragma once

#include <vector>

#include "model/config.h"

namespace mica {

// Radians per position of pair i, [head_dim / 2]: theta^(-2 i / head_dim), scaled as config.rope_scaling
// says: linear divides by the factor; llama3 divides wavelengths longer than original / low_freq_factor by
// the factor, keeps those shorter than original / high_freq_factor and blends between.
std::vector<double> RopeFrequencies(const ModelConfig& config);

}  // namespace mica
