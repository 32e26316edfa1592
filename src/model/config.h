// What config.json says of a model, validated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/family/family.h"
#include "ops/activation/activation.h"

namespace mica {

enum class RopeScaling { kNone, kLinear, kDynamic, kLlama3, kYarn, kLongrope };
// "none", "linear", ..., as rope_type has it but for the first.
const char* RopeScalingName(RopeScaling scaling);

// A rotary embedding; what the numbers mean is rope.h's.
struct RopeConfig {
  double theta = 10000.0;
  size_t channels = 0;  // of a head: the first so many turn, an even number; the others stay
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;              // linear, dynamic, llama3, yarn
  double low_frequency = 1.0;       // llama3: low_freq_factor
  double high_frequency = 4.0;      // llama3: high_freq_factor
  double original_positions = 0.0;  // what the model was trained on first; all but none and linear
  double beta_fast = 32.0;          // yarn: turns in the original context above which a pair keeps its speed
  double beta_slow = 1.0;           // yarn: and below which it is divided by the factor
  bool whole_bounds = true;         // yarn: the pairs at these bounds are rounded outwards
  std::vector<double> short_factors, long_factors;  // longrope: divisors of a pair, [channels / 2]
  double amplitude = 1.0;                           // yarn, longrope: cosines and sines are multiplied by it

  bool operator==(const RopeConfig&) const = default;
};

// What may differ from one decoder layer to the next.
struct LayerTraits {
  size_t sliding = 0;  // attention sees the last so many tokens, the token itself included; 0: all
  std::optional<size_t> rope = 0;  // which of ModelConfig::ropes turns queries and keys; none: nothing does
};

struct ModelConfig {
  const Family* family = nullptr;  // what its keys and tensors are called
  const ModelType* type = nullptr;
  std::string model_type;          // "llama" (LLaMA, Vicuna, Yi), "mistral", "qwen2", ...
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
  std::vector<RopeConfig> ropes;    // the first is that of layers which see all tokens
  std::vector<LayerTraits> traits;  // [layers]
  Activation activation = Activation::kSilu;  // of the MLP's gate
  NormSet norms = kInputNorms;
  bool wide_head_norms = false;  // norms of q and k are over all heads together, not over each head
  float score_factor = 0.0f;     // what attention scores are multiplied by: 1 / sqrt(head_dim) where nothing is said
  float attention_cap = 0.0f;    // then score = cap tanh(score / cap); 0: none
  float logit_cap = 0.0f;        // the same of the logits
  float embedding_factor = 1.0f;  // embeddings are multiplied by it as they enter the residual stream
  float residual_factor = 1.0f;   // what attention and MLP add to the stream
  float logit_factor = 1.0f;      // the logits, before their cap
  // Queries at position p are multiplied by 1 + query_slope ln(1 + floor(p / query_positions)); 0: not.
  double query_slope = 0.0, query_positions = 0.0;
  bool tied_head = false;                // lm_head shares the embedding
  bool attention_bias = false;           // biases on q, k, v
  bool output_bias = false;              // bias on o
  bool mlp_bias = false;                 // biases on gate, up, down
  int bos = 1;                           // -1: none
  Json json;                             // the file as read

  size_t q_width() const { return heads * head_dim; }
  size_t kv_width() const { return kv_heads * head_dim; }
  bool Has(NormKind norm) const { return norms.contains(norm); }
  size_t NormWidth(NormKind norm) const;
  // The shortest sliding window of a layer; 0: none slides.
  size_t ShortestSliding() const;
};

// Reads DIRECTORY/config.json. Throws Error naming the file, the key, the value and what is supported.
ModelConfig LoadConfig(const std::filesystem::path& directory);
// The same from JSON that came from `where`. Absent keys take the values that transformers gives them for the
// model type.
ModelConfig ParseConfig(const Json& json, const std::string& where);

// Throws Error unless every id is one of the model's vocabulary.
void CheckTokens(const ModelConfig& config, std::span<const int32_t> ids);

// Parameters of the model: all tensors, a tied head once.
uint64_t ParameterCount(const ModelConfig& config);

}  // namespace mica
