#include "model/config.h"

#include <algorithm>

#include "base/error.h"
#include "model/towers.h"

namespace mica {
namespace {

// Reads keys of one JSON object; every fault names the file, the key and the value.
class Reader {
 public:
  Reader(const Json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) Fail("{}: expected a JSON object, found {}", where_, json.type_name());
  }

  // Absent and null are the same, as in transformers.
  const Json* Find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  template <typename... Args>
  [[noreturn]] void Refuse(const char* key, const Json& value, fmt::format_string<Args...> format,
                           Args&&... args) const {
    std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (text.size() > 80) text = text.substr(0, 77) + "...";
    Fail("{}: {} is {}, {}", where_, key, text, fmt::format(format, std::forward<Args>(args)...));
  }

  size_t Count(const char* key, uint64_t limit) const {
    const Json* value = Find(key);
    if (value == nullptr) Fail("{}: {} is missing, expected a whole number from 1 to {}", where_, key, limit);
    return Count(key, *value, limit);
  }
  size_t Count(const char* key, uint64_t limit, size_t otherwise) const {
    const Json* value = Find(key);
    return value == nullptr ? otherwise : Count(key, *value, limit);
  }

  // A positive finite number.
  double Positive(const char* key, double limit, double otherwise) const {
    const Json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_number() || !(value->get<double>() > 0.0) || !(value->get<double>() <= limit)) {
      Refuse(key, *value, "expected a number above 0 and at most {:g}", limit);
    }
    return value->get<double>();
  }
  double Positive(const char* key, double limit) const {
    if (Find(key) == nullptr) Fail("{}: {} is missing, expected a number above 0", where_, key);
    return Positive(key, limit, 0.0);
  }

  bool Flag(const char* key, bool otherwise) const {
    const Json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) Refuse(key, *value, "expected true or false");
    return value->get<bool>();
  }

  std::string Text(const char* key, const std::string& otherwise) const {
    const Json* value = Find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) Refuse(key, *value, "expected a string");
    return value->get<std::string>();
  }

  const std::string& where() const { return where_; }

 private:
  size_t Count(const char* key, const Json& value, uint64_t limit) const {
    // A negative number stays negative in a signed type; a large unsigned one must not become negative.
    const bool positive =
        value.is_number_unsigned() || (value.is_number_integer() && value.get<int64_t>() >= 0);
    if (!positive || value.get<uint64_t>() < 1 || value.get<uint64_t>() > limit) {
      Refuse(key, value, "expected a whole number from 1 to {}", limit);
    }
    return value.get<uint64_t>();
  }

  const Json& json_;
  std::string where_;
};

const ModelType& TypeOf(const Reader& reader) {
  const std::string name = reader.Text("model_type", "");
  if (const ModelType* type = FindModelType(name)) return *type;
  if (name.empty()) {
    Fail("{}: model_type is missing; supported are {}", reader.where(), JoinNames(ModelTypes(), "and"));
  }
  Fail("{}: model_type is \"{}\", which is not supported; supported are {}", reader.where(), name,
       JoinNames(ModelTypes(), "and", &ModelType::also));
}

void RefusePartialRotary(const Reader& reader) {
  const Json* rotary = reader.Find("partial_rotary_factor");
  if (rotary != nullptr && *rotary != 1.0) reader.Refuse("partial_rotary_factor", *rotary, "supported is 1");
}

// What `key` ("rope_scaling" or "rope_parameters", an object) says of the rotary embedding.
void ReadRopeObject(const Reader& reader, const char* key, const Json& object, ModelConfig* config) {
  if (!object.is_object()) reader.Refuse(key, object, "expected null or an object with rope_type");
  const Reader rope(object, fmt::format("{}: {}", reader.where(), key));
  for (const auto& [name, value] : object.items()) {
    if (value.is_object())
      rope.Refuse(name.c_str(), value, "supported is one rotary embedding for all layers");
  }
  constexpr double kMaxTheta = 1e12, kMaxFactor = 1e6;
  const char* const theta = config->family->keys.rope_theta;
  config->rope_theta = rope.Positive(theta, kMaxTheta, config->rope_theta);
  RefusePartialRotary(rope);
  const std::string type = rope.Text("rope_type", rope.Text("type", ""));
  if (type.empty()) {
    // Numbers of a scaling that nobody named: transformers refuses them, or takes them for "default".
    for (const auto& [name, value] : object.items()) {
      if (name != theta && name != "partial_rotary_factor" && !value.is_null())
        rope.Refuse(name.c_str(), value,
                    "but there is no rope_type beside it; supported are default, linear and llama3");
    }
    return;
  }
  if (type == "default") return;
  if (type == "linear") {
    config->rope_scaling = RopeScaling::kLinear;
    config->rope_factor = rope.Positive("factor", kMaxFactor);
  } else if (type == "llama3") {
    config->rope_scaling = RopeScaling::kLlama3;
    config->rope_factor = rope.Positive("factor", kMaxFactor);
    config->rope_low_frequency = rope.Positive("low_freq_factor", kMaxFactor);
    config->rope_high_frequency = rope.Positive("high_freq_factor", kMaxFactor);
    config->rope_original_positions = rope.Positive("original_max_position_embeddings", 1e9);
    if (config->rope_high_frequency <= config->rope_low_frequency) {
      rope.Refuse("high_freq_factor", *rope.Find("high_freq_factor"),
                  "expected more than low_freq_factor, {:g}", config->rope_low_frequency);
    }
  } else {
    Fail("{}: {} has type \"{}\", which is not supported; supported are default, linear and llama3",
         reader.where(), key, type);
  }
}

// Both spellings: "rope_scaling" with "rope_theta" beside it, and the newer "rope_parameters" that holds
// both. A file that has the two must say the same in them.
void ReadRope(const Reader& reader, ModelConfig* config) {
  constexpr double kMaxTheta = 1e12;
  config->rope_theta = reader.Positive(config->family->keys.rope_theta, kMaxTheta, config->rope_theta);
  const Json* scaling = reader.Find("rope_scaling");
  const Json* parameters = reader.Find("rope_parameters");
  if (parameters != nullptr) ReadRopeObject(reader, "rope_parameters", *parameters, config);
  if (scaling == nullptr) return;
  ModelConfig by_scaling = *config;
  by_scaling.rope_scaling = RopeScaling::kNone;
  by_scaling.rope_factor = 1.0;
  ReadRopeObject(reader, "rope_scaling", *scaling, &by_scaling);
  const bool same = by_scaling.rope_theta == config->rope_theta &&
                    by_scaling.rope_scaling == config->rope_scaling &&
                    by_scaling.rope_factor == config->rope_factor;
  if (parameters != nullptr && !same)
    reader.Refuse("rope_scaling", *scaling,
                  "which is not what rope_parameters says; remove the one that is wrong");
  *config = std::move(by_scaling);
}

std::string LowerCase(std::string text) {
  for (char& c : text) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return text;
}

// Settings that would change the computation and that no supported model has.
void RefuseUnsupported(const Reader& reader, const ModelType& type) {
  if (const Json* names = reader.Find("architectures")) {
    // The first conversions of LLaMA spelled it LLaMAForCausalLM.
    if (!names->is_array() || names->empty() || !(*names)[0].is_string() ||
        LowerCase((*names)[0].get<std::string>()) != LowerCase(std::string(type.architecture))) {
      reader.Refuse("architectures", *names, "expected [\"{}\"] for model_type {}", type.architecture,
                    type.name);
    }
  }
  const Family& family = *type.family;
  if (const Json* activation = reader.Find(family.keys.activation);
      activation != nullptr && *activation != family.activation) {
    reader.Refuse(family.keys.activation, *activation, "supported is \"{}\"", family.activation);
  }
  RefusePartialRotary(reader);
  if (const Json* types = reader.Find("layer_types")) {
    if (!types->is_array()) reader.Refuse("layer_types", *types, "expected an array of layer types");
    // Both are the same within the window, beyond which CheckWindow refuses.
    for (const Json& layer : *types) {
      if (layer != "full_attention" && layer != "sliding_attention")
        reader.Refuse("layer_types", *types, "supported are \"full_attention\" and \"sliding_attention\"");
    }
  }
  if (const Json* quantization = reader.Find("quantization_config")) {
    const Reader inner(*quantization, fmt::format("{}: quantization_config", reader.where()));
    const std::string method = inner.Text("quant_method", "");
    if (method != "mica") {
      Fail(
          "{}: quantization_config has quant_method \"{}\", which is not supported; supported is mica, or a "
          "checkpoint in "
          "16 or 32 bits",
          reader.where(), method);
    }
  }
}

}  // namespace

ModelConfig ParseConfig(const Json& json, const std::string& where) {
  const Reader reader(json, where);
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
  config.model_type = type.name;
  config.architecture = type.architecture;
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
  if (reader.Find(keys.head_dim) == nullptr && config.hidden % config.heads != 0) {
    reader.Refuse(keys.heads, *reader.Find(keys.heads), "expected a divisor of {}, {}, unless {} is given",
                  keys.hidden, config.hidden, keys.head_dim);
  }
  config.head_dim = reader.Count(keys.head_dim, kMaxHeadDim, config.hidden / config.heads);
  if (config.head_dim % 2 != 0 || config.head_dim > kMaxHeadDim) {
    Fail("{}: head_dim is {} ({}, or {} / {}), expected an even number up to {}", where, config.head_dim,
         keys.head_dim, keys.hidden, keys.heads, kMaxHeadDim);
  }
  config.norm_epsilon = static_cast<float>(reader.Positive(keys.norm_epsilon, 1.0, 1e-6));
  if (!(config.norm_epsilon > 0.0f)) {
    reader.Refuse(keys.norm_epsilon, *reader.Find(keys.norm_epsilon), "expected a number that FP32 can hold");
  }
  ReadRope(reader, &config);
  config.tied_head = reader.Flag("tie_word_embeddings", false);

  if (type.biases == BiasRule::kConfig) {
    config.attention_bias = config.output_bias = reader.Flag(keys.attention_bias, false);
    config.mlp_bias = reader.Flag(keys.mlp_bias, false);
  } else if (type.biases == BiasRule::kQkv) {
    config.attention_bias = true;
  }
  if (type.sliding != SlidingRule::kNever) {
    const bool used = type.sliding == SlidingRule::kFlag ? reader.Flag(keys.use_sliding_window, false) : true;
    // Null means none, and only an absent key means the default.
    const bool given = json.contains(keys.sliding_window);
    const size_t size = reader.Count(keys.sliding_window, kMaxPositions, given ? 0 : type.sliding_window);
    config.sliding_window = used ? size : 0;
  }

  const Json* bos = reader.Find("bos_token_id");
  if (bos == nullptr) {
    config.bos = type.bos;
  } else if (!bos->is_number_integer() || *bos < 0 || *bos >= config.vocab) {
    reader.Refuse("bos_token_id", *bos, "expected a token id below {}, {}", keys.vocab, config.vocab);
  } else {
    config.bos = bos->get<int>();
  }
  return config;
}

ModelConfig LoadConfig(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  const Json json = ReadJson(path);
  RefuseTowers(json, path.string());
  return ParseConfig(json, path.string());
}

void CheckWindow(const ModelConfig& config, size_t window) {
  if (config.sliding_window != 0 && window > config.sliding_window) {
    Fail(
        "a window of {} tokens is longer than the model's sliding_window of {}, and sliding attention is not "
        "supported; use windows of "
        "at most {} tokens",
        window, config.sliding_window, config.sliding_window);
  }
}

void CheckTokens(const ModelConfig& config, std::span<const int32_t> ids) {
  const auto [low, high] = std::minmax_element(ids.begin(), ids.end());
  if (low == ids.end() || (*low >= 0 && static_cast<size_t>(*high) < config.vocab)) return;
  Fail(
      "the tokenizer gives token id {}, but the model's vocabulary has {} entries; tokenizer.model and "
      "config.json do not belong together",
      *low < 0 ? *low : *high, config.vocab);
}

uint64_t ParameterCount(const ModelConfig& config) {
  const uint64_t hidden = config.hidden, ffn = config.ffn, q = config.q_width(), kv = config.kv_width();
  uint64_t layer = 2 * hidden * q + 2 * hidden * kv + 3 * hidden * ffn + 2 * hidden;
  if (config.attention_bias) layer += q + 2 * kv;
  if (config.output_bias) layer += hidden;
  if (config.mlp_bias) layer += 2 * ffn + hidden;
  return config.layers * layer + (config.tied_head ? 1 : 2) * config.vocab * hidden + hidden;
}

}  // namespace mica
