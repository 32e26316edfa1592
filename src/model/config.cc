#include "model/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "base/error.h"
#include "model/compressed_tensors/quantization_config.h"
#include "model/config_reader.h"
#include "model/rope_config.h"
#include "model/towers.h"

namespace mica {
namespace {

// Mixtures of experts, by the model types of transformers that are published most; others are known by keys.
constexpr std::array<std::string_view, 16> kMixtures = {
    "mixtral",     "qwen2_moe",   "qwen3_moe", "qwen3_next", "deepseek_v2", "deepseek_v3", "olmoe", "granitemoe",
    "phimoe",      "gpt_oss",     "llama4",    "llama4_text", "dbrx",       "jamba",       "glm4_moe",
    "ernie4_5_moe"};
constexpr std::array kExpertKeys = {"num_local_experts", "num_experts", "n_routed_experts"};

void RefuseMixtures(const ConfigReader& reader, const std::string& model_type) {
  const char* found = nullptr;
  for (const char* key : kExpertKeys) {
    const Json* experts = reader.Find(key);
    if (experts != nullptr && experts->is_number() && *experts > 1) found = key;
  }
  if (found == nullptr && std::ranges::find(kMixtures, model_type) == kMixtures.end()) return;
  std::string key;
  if (found != nullptr) key = fmt::format(" ({} is {})", found, reader.Find(found)->dump());
  Fail("{}: model_type \"{}\" is a mixture of experts{}, which is not supported; supported are {}",
       reader.where(), model_type, key, JoinNames(ModelTypes(), "and"));
}

const ModelType& TypeOf(const ConfigReader& reader) {
  const std::string name = reader.Text("model_type", "");
  RefuseMixtures(reader, name);
  if (const ModelType* type = FindModelType(name)) return *type;
  if (name.empty()) {
    Fail("{}: model_type is missing; supported are {}", reader.where(), JoinNames(ModelTypes(), "and"));
  }
  Fail("{}: model_type is \"{}\", which is not supported; supported are {}", reader.where(), name,
       JoinNames(ModelTypes(), "and", &ModelType::also));
}

std::string LowerCase(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

// Settings that would change the computation and that no supported model has.
void RefuseUnsupported(const ConfigReader& reader, const ModelType& type) {
  if (const Json* names = reader.Find("architectures")) {
    // The first conversions of LLaMA spelled it LLaMAForCausalLM.
    if (!names->is_array() || names->empty() || !(*names)[0].is_string() ||
        LowerCase((*names)[0].get<std::string>()) != LowerCase(std::string(type.architecture))) {
      reader.Refuse("architectures", *names, "expected [\"{}\"] for model_type {}", type.architecture,
                    type.name);
    }
  }
  if (const Json* quantization = reader.Find("quantization_config")) {
    const ConfigReader inner(*quantization, fmt::format("{}: quantization_config", reader.where()));
    const std::string method = inner.Text("quant_method", "");
    if (method == kCompressedTensorsMethod) {
      CompressedTensorsConfig::Parse(*quantization, inner.where());
    } else if (method != "mica") {
      Fail(
          "{}: quantization_config has quant_method \"{}\", which is not supported; supported are mica, "
          "compressed-tensors, or a checkpoint in 16 or 32 bits",
          reader.where(), method);
    }
  }
}

Activation ReadActivation(const ConfigReader& reader, const Family& family) {
  const char* const key = family.keys.activation;
  const std::string name = reader.Text(key, family.activation);
  if (const std::optional<Activation> known = FindActivation(name)) return *known;
  reader.Refuse(key, *reader.Find(key), "supported are {}", ActivationNames());
}

// sliding_window, 0 for none: null means none, and only an absent key means the default.
size_t SlidingTokens(const ConfigReader& reader, const ModelConfig& config, uint64_t limit) {
  const ModelType& type = *config.type;
  const char* const key = type.family->keys.sliding_window;
  const size_t size = reader.Count(key, limit, config.json.contains(key) ? 0 : type.sliding_window);
  const bool used =
      type.sliding != SlidingRule::kFlag || reader.Flag(type.family->keys.use_sliding_window, false);
  return used ? size : 0;
}

// Which layers slide, by the type's rule or as layer_types has it.
void ReadSliding(const ConfigReader& reader, ModelConfig& config, uint64_t limit) {
  const ModelType& type = *config.type;
  config.traits.assign(config.layers, {});
  std::vector<bool> slides(config.layers, type.sliding == SlidingRule::kAll);
  if (type.sliding == SlidingRule::kFlag) {
    const Json* given = reader.Find("max_window_layers");
    const size_t from =  // 0 is none of Count's numbers
        given != nullptr && *given == 0 ? 0 : reader.Count("max_window_layers", limit, 28);
    for (size_t layer = from; layer < config.layers; ++layer) slides[layer] = true;
  } else if (type.sliding == SlidingRule::kPeriod) {
    const size_t period = reader.Count("sliding_window_pattern", limit, type.sliding_period);
    for (size_t layer = 0; layer < config.layers; ++layer) slides[layer] = (layer + 1) % period != 0;
  }
  if (const Json* types = reader.Find("layer_types")) {
    if (!types->is_array() || types->size() != config.layers)
      reader.Refuse("layer_types", *types, "expected an array of {} layer types", config.layers);
    for (size_t layer = 0; layer < config.layers; ++layer) {
      const Json& one = (*types)[layer];
      const std::string name = one.is_string() ? one.get<std::string>() : "";
      if (name != "full_attention" && name != "sliding_attention")
        reader.Refuse("layer_types", *types, "supported are \"full_attention\" and \"sliding_attention\"");
      slides[layer] = name == "sliding_attention";
    }
  }
  const size_t tokens = type.sliding == SlidingRule::kNever ? 0 : SlidingTokens(reader, config, limit);
  for (size_t layer = 0; layer < config.layers; ++layer) {
    if (slides[layer]) config.traits[layer].sliding = tokens;
  }
}

}  // namespace

size_t ModelConfig::NormWidth(NormKind norm) const {
  switch (norm) {
    case NormKind::kAttentionInput:
    case NormKind::kMlpInput:
    case NormKind::kAttentionOutput:
    case NormKind::kMlpOutput:
      return hidden;
    case NormKind::kQuery:
      return wide_head_norms ? q_width() : head_dim;
    case NormKind::kKey:
      return wide_head_norms ? kv_width() : head_dim;
  }
  MICA_CHECK(false);
}

size_t ModelConfig::ShortestSliding() const {
  size_t shortest = 0;
  for (const LayerTraits& layer : traits) {
    if (layer.sliding != 0 && (shortest == 0 || layer.sliding < shortest)) shortest = layer.sliding;
  }
  return shortest;
}

ModelConfig ParseConfig(const Json& json, const std::string& where) {
  const ConfigReader reader(json, where);
  const ModelType& type = TypeOf(reader);
  const ConfigKeys& keys = type.family->keys;
  RefuseUnsupported(reader, type);

  // Generous bounds, far above any published model: beyond them a number is a mistake, and products of them
  // still fit in 64 bits.
  constexpr uint64_t kMaxLayers = 4096, kMaxWidth = 1 << 20, kMaxHeads = 1 << 14, kMaxVocab = 1 << 24;
  constexpr uint64_t kMaxPositions = uint64_t{1} << 30;
  ModelConfig config;
  config.json = json;
  config.family = type.family;
  config.type = &type;
  config.model_type = type.name;
  config.architecture = type.architecture;
  config.norms = type.norms;
  config.layers = reader.Count(keys.layers, kMaxLayers);
  config.hidden = reader.Count(keys.hidden, kMaxWidth);
  config.heads = reader.Count(keys.heads, kMaxHeads);
  config.kv_heads = reader.Count(keys.kv_heads, kMaxHeads, config.heads);
  config.ffn = reader.Count(keys.ffn, kMaxWidth);
  config.vocab = reader.Count(keys.vocab, kMaxVocab);
  config.max_positions = reader.Count(keys.max_positions, kMaxPositions, type.max_positions);
  if (config.kv_heads > config.heads || config.heads % config.kv_heads != 0) {
    reader.Refuse(keys.kv_heads, *reader.Find(keys.kv_heads), "expected a divisor of {}, {}", keys.heads,
                  config.heads);
  }
  constexpr uint64_t kMaxHeadDim = 4096;
  if (reader.Find(keys.head_dim) == nullptr && !type.head_dim && config.hidden % config.heads != 0) {
    reader.Refuse(keys.heads, *reader.Find(keys.heads), "expected a divisor of {}, {}, unless {} is given",
                  keys.hidden, config.hidden, keys.head_dim);
  }
  config.head_dim =
      reader.Count(keys.head_dim, kMaxHeadDim, type.head_dim.value_or(config.hidden / config.heads));
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    Fail("{}: head_dim is {} ({}, or {} / {}), expected an even number up to {}", where, config.head_dim,
         keys.head_dim, keys.hidden, keys.heads, kMaxHeadDim);
  }
  config.score_factor = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  config.norm_epsilon = static_cast<float>(reader.Positive(keys.norm_epsilon, 1.0, 1e-6));
  if (!(config.norm_epsilon > 0.0f)) {
    reader.Refuse(keys.norm_epsilon, *reader.Find(keys.norm_epsilon), "expected a number that FP32 can hold");
  }
  config.activation = ReadActivation(reader, *type.family);
  ReadSliding(reader, config, kMaxPositions);
  ReadRopes(reader, config);
  config.tied_head = reader.Flag("tie_word_embeddings", type.tied_head);

  if (type.biases == BiasRule::kConfig) {
    config.attention_bias = config.output_bias = reader.Flag(keys.attention_bias, false);
    config.mlp_bias = reader.Flag(keys.mlp_bias, false);
  } else if (type.biases == BiasRule::kQkv) {
    config.attention_bias = true;
  }
  const Json* bos = reader.Find("bos_token_id");
  if (bos == nullptr) {
    config.bos = type.bos;
  } else if (!bos->is_number_integer() || *bos < 0 || *bos >= config.vocab) {
    reader.Refuse("bos_token_id", *bos, "expected a token id below {}, {}", keys.vocab, config.vocab);
  } else {
    config.bos = bos->get<int>();
  }
  if (type.describe != nullptr) type.describe(reader, config);
  return config;
}

ModelConfig LoadConfig(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  const Json json = ReadJson(path);
  RefuseTowers(json, path.string());
  return ParseConfig(json, path.string());
}

void CheckTokens(const ModelConfig& config, std::span<const int32_t> ids) {
  const auto [low, high] = std::minmax_element(ids.begin(), ids.end());
  if (low == ids.end() || (*low >= 0 && static_cast<size_t>(*high) < config.vocab)) return;
  Fail(
      "the tokenizer gives token id {}, but the model's vocabulary has {} entries; the tokenizer and "
      "config.json do not belong together",
      *low < 0 ? *low : *high, config.vocab);
}

uint64_t ParameterCount(const ModelConfig& config) {
  const uint64_t hidden = config.hidden, ffn = config.ffn, q = config.q_width(), kv = config.kv_width();
  uint64_t layer = 2 * hidden * q + 2 * hidden * kv + 3 * hidden * ffn;
  for (const NormKind norm : kNormKinds) {
    if (config.Has(norm)) layer += config.NormWidth(norm);
  }
  if (config.attention_bias) layer += q + 2 * kv;
  if (config.output_bias) layer += hidden;
  if (config.mlp_bias) layer += 2 * ffn + hidden;
  return config.layers * layer + (config.tied_head ? 1 : 2) * config.vocab * hidden + hidden;
}

}  // namespace mica
