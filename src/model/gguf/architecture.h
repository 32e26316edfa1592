// Architectures of GGUF files that hold the models mica computes: what their tensors are called and in which
// order rows of q and k stand. The table is in architecture.cc: a further one is a row.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "model/config.h"
#include "model/family/family.h"

namespace mica {

struct GgufArchitecture {
  const char* name;  // value of general.architecture, and what its keys begin with
  // model_type of the configurations that are written so; a file is read as the first, one with sliding
  // attention as the last where these differ in it (OLMo 2 and 3).
  std::span<const std::string_view> model_types;
  TensorNames names;
  // Stored as one; the names of their parts stand in no file.
  std::span<const FusedLinears> fused;
  // Whether its rotary embedding turns neighbouring channels (0, 1), (2, 3), ... of a head: rows of q and k
  // are stored so that those are channels (0, d/2), (1, d/2 + 1), ... of Hugging Face's order (rows.h).
  bool turns_neighbours;
  // The depth at which its readers take hidden / heads for head_dim in the factor of attention scores (Gemma of
  // 27 B); 0: none.
  size_t layers_of_wide_scores = 0;
};

// Null when it is not known.
const GgufArchitecture* FindGgufArchitecture(std::string_view name);
// The one that a model is written as; throws Error naming its model_type when there is none.
const GgufArchitecture& GgufArchitectureOf(const ModelConfig& config);
// "llama and qwen2", for messages.
std::string GgufArchitectureNames();

}  // namespace mica
