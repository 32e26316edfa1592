// Random checkpoints of any shape for the tests, in FP32 so that both sides of a comparison read the same
// weights.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "io/container/safetensors.h"
#include "model/config.h"
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

// Name and shape of every tensor the configuration asks for.
inline std::vector<std::pair<std::string, std::vector<uint64_t>>> TensorShapes(const ModelConfig& config) {
  std::vector<std::pair<std::string, std::vector<uint64_t>>> shapes;
  shapes.push_back({"model.embed_tokens.weight", {config.vocab, config.hidden}});
  for (size_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    shapes.push_back({prefix + "input_layernorm.weight", {config.hidden}});
    shapes.push_back({prefix + "post_attention_layernorm.weight", {config.hidden}});
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
                     : (bias ? 0.0f : 1.0f) + 0.2f * normal(generator);
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

inline std::vector<int32_t> RandomIds(size_t count, size_t vocab, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_int_distribution<int32_t> any(0, static_cast<int32_t>(vocab) - 1);
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = any(generator);
  return ids;
}

}  // namespace mica
