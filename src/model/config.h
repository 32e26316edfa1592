// What config.json says of a model, validated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "base/json.h"
#include "model/family/family.h"

namespace mica {

enum class RopeScaling { kNone, kLinear, kLlama3 };

struct ModelConfig {
  const Family* family = nullptr;  // what its keys and tensors are called
  std::string model_type;          // "llama" (LLaMA, Vicuna, Yi), "mistral", "qwen2"
  std::string architecture;        // "LlamaForCausalLM"
  size_t layers = 0;
  size_t hidden = 0;
  size_t heads = 0;
  size_t kv_heads = 0;  // heads: MHA; 1: MQA; between: GQA
  size_t head_dim = 0;  // even
  size_t ffn = 0;
  size_t vocab = 0;
  size_t max_positions = 0;
  float norm_epsilon = 1e-6f;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling = RopeScaling::kNone;
  double rope_factor = 1.0;              // linear and llama3
  double rope_low_frequency = 1.0;       // llama3: low_freq_factor
  double rope_high_frequency = 4.0;      // llama3: high_freq_factor
  double rope_original_positions = 0.0;  // llama3: original_max_position_embeddings
  bool tied_head = false;                // lm_head shares the embedding
  bool attention_bias = false;           // biases on q, k, v
  bool output_bias = false;              // bias on o
  bool mlp_bias = false;                 // biases on gate, up, down
  int bos = 1;                           // -1: none
  size_t sliding_window = 0;             // 0: none; see CheckWindow
  Json json;                             // the file as read

  size_t q_width() const { return heads * head_dim; }
  size_t kv_width() const { return kv_heads * head_dim; }
};

// Reads DIRECTORY/config.json. Throws Error naming the file, the key, the value and what is supported.
ModelConfig LoadConfig(const std::filesystem::path& directory);
// The same from JSON that came from `where`. Absent keys take the values that transformers gives them for the
// model type.
ModelConfig ParseConfig(const Json& json, const std::string& where);

// Throws Error when windows of `window` tokens would need attention this program does not compute: a sliding
// window shorter than the window. (Positions beyond max_positions are computed; the model has not learnt
// them.)
void CheckWindow(const ModelConfig& config, size_t window);

// Throws Error unless every id is one of the model's vocabulary.
void CheckTokens(const ModelConfig& config, std::span<const int32_t> ids);

// Parameters of the model: all tensors, a tied head once.
uint64_t ParameterCount(const ModelConfig& config);

}  // namespace mica
