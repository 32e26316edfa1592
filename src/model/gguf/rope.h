// Scaled rotary embeddings as GGUF files have them: for each pair of channels what its frequency is divided
// by ([channels / 2] FP32), where Hugging Face's "llama3" has four numbers (rope_freqs.weight) and "longrope"
// has the same two lists.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "model/config.h"

namespace mica {

// Of a configuration with llama3 scaling; empty for others.
std::vector<float> RopeFactors(const ModelConfig& config);

// All tensors of factors that a configuration needs, by name.
struct RopeFactorTensor {
  const char* name;
  std::vector<float> factors;  // [channels / 2]
};
std::vector<RopeFactorTensor> RopeFactorTensors(const ModelConfig& config);

// The llama3 scaling that gives these factors with the head_dim and rope_theta of `config`: sets its kind and
// its numbers. original_positions: what the file says of them, the first to be tried. False, and `config` as
// it was, when none of the scalings in use does.
bool FindRopeScaling(std::span<const float> factors, std::optional<double> original_positions,
                     ModelConfig* config);

}  // namespace mica
