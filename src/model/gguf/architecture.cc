#include "model/gguf/architecture.h"

#include <algorithm>

#include "base/error.h"

namespace mica {
namespace {

constexpr std::string_view kLlamaTypes[] = {"llama", "mistral", "ministral"};
constexpr std::string_view kMistral3Types[] = {"ministral3"};
constexpr std::string_view kQwen2Types[] = {"qwen2"};
constexpr std::string_view kQwen3Types[] = {"qwen3"};
constexpr std::string_view kSmolLm3Types[] = {"smollm3"};
constexpr std::string_view kGraniteTypes[] = {"granite"};
constexpr std::string_view kPhi3Types[] = {"phi3"};
constexpr std::string_view kOlmo2Types[] = {"olmo2", "olmo3"};
constexpr std::string_view kGemmaTypes[] = {"gemma"};
constexpr std::string_view kGemma2Types[] = {"gemma2"};
constexpr std::string_view kGemma3Types[] = {"gemma3_text"};

// What all of them call the modules that they share.
constexpr TensorNames kNames = {
    .embedding = "token_embd",
    .head = "output",
    .final_norm = "output_norm",
    .layers = "blk.",
    .norms = {"attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm"},
    .linears = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}};

constexpr TensorNames kPhi3Names = [] {
  TensorNames names = kNames;
  names.linears = {"attn_qkv.q",  "attn_qkv.k", "attn_qkv.v", "attn_output",
                   "ffn_up.gate", "ffn_up.up",  "ffn_down"};
  return names;
}();
constexpr LinearKind kQkv[] = {LinearKind::kQ, LinearKind::kK, LinearKind::kV};
constexpr LinearKind kGateUp[] = {LinearKind::kGate, LinearKind::kUp};
constexpr FusedLinears kPhi3Fused[] = {{"attn_qkv", kQkv}, {"ffn_up", kGateUp}};

constexpr GgufArchitecture kArchitectures[] = {
    {.name = "llama", .model_types = kLlamaTypes, .names = kNames, .fused = {}, .turns_neighbours = true},
    {.name = "mistral3", .model_types = kMistral3Types, .names = kNames, .fused = {}, .turns_neighbours = true},
    {.name = "qwen2", .model_types = kQwen2Types, .names = kNames, .fused = {}, .turns_neighbours = false},
    {.name = "qwen3", .model_types = kQwen3Types, .names = kNames, .fused = {}, .turns_neighbours = false},
    {.name = "smollm3", .model_types = kSmolLm3Types, .names = kNames, .fused = {}, .turns_neighbours = true},
    {.name = "granite", .model_types = kGraniteTypes, .names = kNames, .fused = {}, .turns_neighbours = true},
    {.name = "phi3",
     .model_types = kPhi3Types,
     .names = kPhi3Names,
     .fused = kPhi3Fused,
     .turns_neighbours = false},
    {.name = "olmo2", .model_types = kOlmo2Types, .names = kNames, .fused = {}, .turns_neighbours = false},
    {.name = "gemma", .model_types = kGemmaTypes, .names = kNames, .fused = {}, .turns_neighbours = false},
    {.name = "gemma2",
     .model_types = kGemma2Types,
     .names = kNames,
     .fused = {},
     .turns_neighbours = false,
     .layers_of_wide_scores = 46},
    {.name = "gemma3",
     .model_types = kGemma3Types,
     .names = kNames,
     .fused = {},
     .turns_neighbours = false,
     .layers_of_wide_scores = 62},
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
