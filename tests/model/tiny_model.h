// Random checkpoints of any shape for the tests, in FP32 so that both sides of a comparison read the same
// weights.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <ostream>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "io/container/safetensors.h"
#include "model/config.h"
#include "model/layer.h"
#include "model/weights.h"
#include "tests/temporary_directory.h"

namespace mica {

// A small GQA model; tests change the keys they care about.
inline Json TinyConfig() {
  return Json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 24, "intermediate_size": 40,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "vocab_size": 50, "tie_word_embeddings": false})");
}

// What a model of each architecture changes in it, with sliding windows and original contexts of a few tokens.
struct ShapeCase {
  const char* name;
  Json changes;
};
inline void PrintTo(const ShapeCase& shape, std::ostream* out) { *out << shape.name; }
inline std::vector<ShapeCase> ArchitectureCases() {
  const auto of = [](const char* type, const char* architecture, Json changes) {
    changes["model_type"] = type;
    changes["architectures"] = {architecture};
    return changes;
  };
  const Json yarn = {{"rope_type", "yarn"}, {"rope_theta", 10000.0}, {"factor", 4.0},
                     {"original_max_position_embeddings", 8}, {"beta_fast", 4.0}};
  Json growing = yarn;
  growing.update({{"llama_4_scaling_beta", 0.3}, {"mscale", 1.0}, {"mscale_all_dim", 1.0}});
  const Json longrope = {{"type", "longrope"}, {"attention_factor", 1.1}, {"short_factor", {1.0, 1.1, 1.2}}, {"long_factor", {1.0, 2.0, 3.0}}};
  Json usual = longrope;  // its amplitude from the lengths of both contexts
  usual.erase("attention_factor");
  const Json sliding = {"sliding_attention", "full_attention"};
  return {
      {"Mistral", of("mistral", "MistralForCausalLM", {{"sliding_window", 5}, {"rms_norm_eps", 0.1}})},
      {"Ministral", of("ministral", "MinistralForCausalLM", {{"sliding_window", 5}, {"layer_types", sliding}})},
      {"Ministral3", of("ministral3", "Ministral3ForCausalLM", {{"head_dim", 8}, {"rope_parameters", growing}})},
      {"Qwen2", of("qwen2", "Qwen2ForCausalLM", Json::object())},
      {"Qwen2Sliding", of("qwen2", "Qwen2ForCausalLM",
                          {{"use_sliding_window", true}, {"sliding_window", 4}, {"max_window_layers", 1}})},
      {"Qwen3", of("qwen3", "Qwen3ForCausalLM", {{"head_dim", 10}, {"tie_word_embeddings", true}})},
      {"SmolLm3", of("smollm3", "SmolLM3ForCausalLM", {{"no_rope_layers", {1, 0}}})},
      {"Granite", of("granite", "GraniteForCausalLM",
                     {{"embedding_multiplier", 3.0}, {"logits_scaling", 2.0}, {"attention_multiplier", 0.7},
                      {"residual_multiplier", 0.6}, {"attention_bias", true}})},
      {"Phi3Partial", of("phi3", "Phi3ForCausalLM",
                         {{"head_dim", 8}, {"partial_rotary_factor", 0.75}, {"sliding_window", 6}})},
      {"Phi3Long", of("phi3", "Phi3ForCausalLM",
                      {{"original_max_position_embeddings", 7}, {"rope_scaling", longrope}})},
      {"Phi3Short", of("phi3", "Phi3ForCausalLM",
                       {{"original_max_position_embeddings", 64}, {"rope_scaling", usual}})},
      {"Olmo2", of("olmo2", "Olmo2ForCausalLM", Json::object())},
      {"Olmo3", of("olmo3", "Olmo3ForCausalLM",
                   {{"sliding_window", 5}, {"layer_types", sliding}, {"rope_parameters", yarn}})},
      {"Gemma", of("gemma", "GemmaForCausalLM", {{"head_dim", 8}, {"tie_word_embeddings", true}})},
      {"Gemma2", of("gemma2", "Gemma2ForCausalLM",
                    {{"head_dim", 8}, {"sliding_window", 5}, {"query_pre_attn_scalar", 9},
                     {"attn_logit_softcapping", 4.0}, {"final_logit_softcapping", 3.0}})},
      {"Gemma3", of("gemma3_text", "Gemma3ForCausalLM",
                    {{"head_dim", 8}, {"sliding_window", 5}, {"query_pre_attn_scalar", 9}, {"layer_types", sliding},
                     {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8.0}}}})},
      {"LlamaYarn", {{"rope_scaling", yarn}}},
      {"LlamaDynamic", {{"max_position_embeddings", 8}, {"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}}},
  };
}

// Name and shape of every tensor the configuration asks for.
inline std::vector<std::pair<std::string, std::vector<uint64_t>>> TensorShapes(const ModelConfig& config) {
  std::vector<std::pair<std::string, std::vector<uint64_t>>> shapes;
  shapes.push_back({"model.embed_tokens.weight", {config.vocab, config.hidden}});
  for (size_t layer = 0; layer < config.layers; ++layer) {
    for (const NormKind norm : kNormKinds) {
      if (config.Has(norm))
        shapes.push_back({NormTensorName(config.family->names, layer, norm) + ".weight", {config.NormWidth(norm)}});
    }
    for (const LinearKind kind : kLinearKinds) {
      const MatrixShape shape = LinearShape(config, kind);
      shapes.push_back({LinearTensorName(*config.family, layer, kind) + ".weight", {shape.rows, shape.cols}});
      if (HasBias(config, kind))
        shapes.push_back({LinearTensorName(*config.family, layer, kind) + ".bias", {shape.rows}});
    }
  }
  shapes.push_back({"model.norm.weight", {config.hidden}});
  if (!config.tied_head) shapes.push_back({"lm_head.weight", {config.vocab, config.hidden}});
  return shapes;
}

using Tensors = std::map<std::string, std::pair<std::vector<uint64_t>, std::vector<float>>>;

// Random weights of a size that makes attention and activations matter: norms near 1, matrices of standard
// deviation 1.5 / sqrt(cols).
inline Tensors RandomTensors(const ModelConfig& config, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  Tensors tensors;
  for (const auto& [name, shape] : TensorShapes(config)) {
    const bool matrix = shape.size() == 2;
    const bool bias = name.ends_with(".bias");
    std::vector<float> values(shape[0] * (matrix ? shape[1] : 1));
    for (float& value : values) {
      value = matrix ? normal(generator) * 1.5f / std::sqrt(static_cast<float>(shape[1]))
                     : (bias ? 0.0f : 1.0f - config.family->norm_offset) + 0.2f * normal(generator);
    }
    tensors[name] = {shape, std::move(values)};
  }
  return tensors;
}

inline void WriteModel(const std::filesystem::path& directory, const Json& json, const Tensors& tensors) {
  WriteJson(directory / "config.json", json);
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back({name, DType::kF32, tensor.first});
  SafetensorsWriter writer(directory / "model.safetensors", specs);
  for (const auto& [name, tensor] : tensors) writer.Write(std::as_bytes(std::span(tensor.second)));
  writer.Commit();
}

// A random model on disk and opened.
class TinyModel {
 public:
  explicit TinyModel(const Json& json, uint32_t seed = 1)
      : config_(ParseConfig(json, "test")), tensors_(RandomTensors(config_, seed)) {
    WriteModel(directory_.path(), json, tensors_);
    weights_ = std::make_unique<ModelWeights>(ModelWeights::Open(directory_.path()));
  }
  const ModelWeights& weights() const { return *weights_; }
  const ModelConfig& config() const { return weights_->config(); }
  const std::filesystem::path& directory() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_;
  ModelConfig config_;
  Tensors tensors_;
  std::unique_ptr<ModelWeights> weights_;
};

// Of one window of ids, in FP32: [ids, vocab].
inline Matrix<float> LogitsOf(const ModelWeights& weights, std::span<const int32_t> ids) {
  Matrix<float> x(ids.size(), weights.config().hidden), logits(ids.size(), weights.config().vocab);
  weights.Embed(ids, x);
  for (size_t layer = 0; layer < weights.config().layers; ++layer)
    DecoderLayer(weights, layer, Precision::kFp32).Forward(x, ids.size());
  OutputHead(weights, Precision::kFp32).Logits(x, logits);
  return logits;
}

inline std::vector<int32_t> RandomIds(size_t count, size_t vocab, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(vocab) - 1);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = any(generator);
  return ids;
}

}  // namespace mica
