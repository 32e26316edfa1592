#include "model/gguf/architecture.h"

#include <algorithm>

#include "base/error.h"

namespace mica {
namespace {

constexpr std::string_view kLlamaTypes[] = {"llama", "mistral"};
constexpr std::string_view kQwen2Types[] = {"qwen2"};

// What all of them call the modules that they share.
constexpr TensorNames kNames = {
    .embedding = "token_embd",
    .head = "output",
    .final_norm = "output_norm",
    .layers = "blk.",
    .norms = {"attn_norm", "ffn_norm", nullptr, nullptr, "attn_q_norm", "attn_k_norm"},
    .linears = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}};

constexpr GgufArchitecture kArchitectures[] = {
    {.name = "llama", .model_types = kLlamaTypes, .names = kNames, .turns_neighbours = true},
    {.name = "qwen2", .model_types = kQwen2Types, .names = kNames, .turns_neighbours = false},
};

}  // namespace

const GgufArchitecture* FindGgufArchitecture(std::string_view name) {
  const auto found = std::find_if(std::begin(kArchitectures), std::end(kArchitectures),
                                  [&](const GgufArchitecture& one) { return one.name == name; });
  return found == std::end(kArchitectures) ? nullptr : found;
}

const GgufArchitecture& GgufArchitectureOf(const ModelConfig& config) {
  for (const GgufArchitecture& one : kArchitectures) {
    if (std::ranges::find(one.model_types, config.model_type) != one.model_types.end()) return one;
  }
  Fail("model_type \"{}\" has no architecture of GGUF files that is known; supported are {}", config.model_type,
       GgufArchitectureNames());
}

std::string GgufArchitectureNames() {
  std::string text;
  for (const GgufArchitecture& one : kArchitectures) {
    if (&one != std::begin(kArchitectures)) text += &one == std::end(kArchitectures) - 1 ? " and " : ", ";
    text += one.name;
  }
  return text;
}

}  // namespace mica
