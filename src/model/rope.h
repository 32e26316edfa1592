// Rotary position embedding: how fast each pair of channels turns (Su et al. 2021), with the scalings of
// long-context models (transformers: modeling_rope_utils). The angles themselves are ops/rope's.
#pragma once

#include <cstddef>
#include <vector>

#include "device/device.h"
#include "model/config.h"
#include "ops/rope/rope.h"

namespace mica {

// Radians per position of pair i in windows of `window` tokens, [channels / 2]: theta^(-2 i / channels),
// scaled as rope.scaling says, with L = original_positions:
//   linear    divided by the factor;
//   dynamic   in windows beyond L, of a theta that is ((factor window / L) - (factor - 1))^(channels / (channels
//             - 2)) times as large;
//   llama3    those with wavelengths longer than L / low_frequency divided by the factor, those shorter than L /
//             high_frequency kept, a blend between;
//   yarn      those with fewer than beta_slow turns in L divided by the factor, those with more than beta_fast
//             kept, a blend by i between (Peng et al. 2023);
//   longrope  divided by long_factors[i] in windows beyond L, by short_factors[i] in others (Ding et al. 2024).
std::vector<double> RopeFrequencies(const RopeConfig& rope, size_t window);
// 0.1 scale ln(factor) + 1, what yarn multiplies cosines and sines by; 1 for factors up to 1.
double YarnAmplitude(double factor, double scale = 1.0);
// Whether they differ between windows.
bool DependsOnWindow(const RopeConfig& rope);

// Cosines and sines of keys, or of queries, whose own growth with the position (ModelConfig::query_slope) they
// hold as well, in windows of `window` tokens.
enum class Turned { kQueries, kKeys };
RopeTable MakeRopeTable(const ModelConfig& config, const RopeConfig& rope, Turned turned, size_t window,
                        Device device);

}  // namespace mica
