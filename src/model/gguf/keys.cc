#include "model/gguf/keys.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "model/gguf/names.h"
#include "model/gguf/rope.h"

namespace mica {
namespace {

constexpr const char* kArchitectureKey = "general.architecture";
constexpr const char* kTypeKey = "general.type";
constexpr const char* kNameKey = "general.name";
constexpr const char* kModel = "model";

// A key ARCHITECTURE.SUFFIX, the key of config.json that says the same, and its value.
struct KeyRow {
  const char* suffix;
  const char* ConfigKeys::*key;
  bool required;  // else left to what config.json means without it
  GgufValue (*value)(const ModelConfig&);
};
GgufValue Whole(size_t value) { return static_cast<uint32_t>(value); }
GgufValue Real(double value) { return static_cast<float>(value); }

constexpr KeyRow kKeys[] = {
    {"block_count", &ConfigKeys::layers, true, [](const ModelConfig& c) { return Whole(c.layers); }},
    {"context_length", &ConfigKeys::max_positions, true,
     [](const ModelConfig& c) { return Whole(c.max_positions); }},
    {"embedding_length", &ConfigKeys::hidden, true, [](const ModelConfig& c) { return Whole(c.hidden); }},
    {"feed_forward_length", &ConfigKeys::ffn, true, [](const ModelConfig& c) { return Whole(c.ffn); }},
    {"attention.head_count", &ConfigKeys::heads, true, [](const ModelConfig& c) { return Whole(c.heads); }},
    {"attention.head_count_kv", &ConfigKeys::kv_heads, false,
     [](const ModelConfig& c) { return Whole(c.kv_heads); }},
    {"attention.key_length", &ConfigKeys::head_dim, false,
     [](const ModelConfig& c) { return Whole(c.head_dim); }},
    {"attention.layer_norm_rms_epsilon", &ConfigKeys::norm_epsilon, true,
     [](const ModelConfig& c) { return Real(c.norm_epsilon); }},
    {"rope.freq_base", &ConfigKeys::rope_theta, false, [](const ModelConfig& c) { return Real(c.ropes.front().theta); }},
    {"vocab_size", &ConfigKeys::vocab, false, [](const ModelConfig& c) { return Whole(c.vocab); }},
};

// Keys that must say what is computed anyway.
struct FixedRow {
  const char* suffix;
  double value;     // 0 as well, which means that the key is not used
  const char* what;
};
constexpr FixedRow kFixed[] = {
    {"expert_count", 0, "a mixture of experts"},
    {"attention.scale", 0, "a scale of attention of its own"},
    {"embedding_scale", 1, "a scale of the embedding"},
    {"residual_scale", 1, "a scale of the residual stream"},
    {"logit_scale", 1, "a scale of the logits"},
    {"attn_logit_softcapping", 0, "capped attention"},
    {"final_logit_softcapping", 0, "capped logits"},
    {"attention.temperature_scale", 0, "a temperature of attention"},
    {"attention.clamp_kqv", 0, "clamped attention"},
};

constexpr const char* kLinear = "linear";
constexpr const char* kScalingType = "rope.scaling.type";
constexpr const char* kScalingFactor = "rope.scaling.factor";
constexpr const char* kOriginalPositions = "rope.scaling.original_context_length";
constexpr const char* kRotated = "rope.dimension_count";
constexpr const char* kValueLength = "attention.value_length";

// Keys of one file by their names behind the architecture's; every fault names file, key and value.
class KeyReader {
 public:
  KeyReader(const Checkpoint& checkpoint, std::string architecture)
      : keys_(*checkpoint.gguf()), where_(GgufFileName(checkpoint)), prefix_(std::move(architecture) + ".") {}

  std::string Name(const char* suffix) const { return prefix_ + suffix; }
  const GgufValue* Find(const char* suffix) const { return FindKey(keys_, Name(suffix)); }

  std::optional<Json> Number(const char* suffix) const {
    const GgufValue* value = Find(suffix);
    if (value == nullptr) return std::nullopt;
    if (const std::optional<int64_t> whole = WholeNumberOf(*value)) return Json(*whole);
    if (const float* real = std::get_if<float>(value)) return Json(static_cast<double>(*real));
    if (const double* real = std::get_if<double>(value)) return Json(*real);
    Fail("{}: key {} has type {}, expected one number for all layers", where_, Name(suffix),
         ValueTypeName(*value));
  }

  std::optional<std::string> Text(const char* suffix) const {
    const GgufValue* value = Find(suffix);
    if (value == nullptr) return std::nullopt;
    const std::string* text = std::get_if<std::string>(value);
    if (text == nullptr)
      Fail("{}: key {} has type {}, expected STRING", where_, Name(suffix), ValueTypeName(*value));
    return *text;
  }

  const std::string& where() const { return where_; }

 private:
  const std::vector<GgufKey>& keys_;
  std::string where_, prefix_;
};

std::string TextOr(const Checkpoint& checkpoint, const char* key, const char* otherwise) {
  const GgufValue* value = FindKey(*checkpoint.gguf(), key);
  if (value == nullptr) return otherwise;
  const std::string* text = std::get_if<std::string>(value);
  if (text == nullptr)
    Fail("{}: key {} has type {}, expected STRING", GgufFileName(checkpoint), key, ValueTypeName(*value));
  return *text;
}

void CheckFixedKeys(const KeyReader& reader) {
  for (const FixedRow& row : kFixed) {
    const std::optional<Json> value = reader.Number(row.suffix);
    if (!value || *value == 0 || *value == row.value) continue;
    Fail("{}: key {} is {}: {}, which is not supported", reader.where(), reader.Name(row.suffix), value->dump(),
         row.what);
  }
}

// Both widths must be the head's, however it is given.
void CheckHeadWidths(const KeyReader& reader, const ModelConfig& config) {
  for (const char* suffix : {kValueLength, kRotated}) {
    const std::optional<Json> value = reader.Number(suffix);
    if (value && *value != config.head_dim) {
      Fail("{}: key {} is {}, supported is the width of a head, {}", reader.where(), reader.Name(suffix),
           value->dump(), config.head_dim);
    }
  }
}

// rope_scaling of config.json, or null.
Json LinearScaling(const KeyReader& reader) {
  const std::string type = reader.Text(kScalingType).value_or(kLinear);
  if (type == "none") return nullptr;
  if (type != kLinear) {
    Fail("{}: key {} is \"{}\", which is not supported; supported are none, linear and the factors of {}",
         reader.where(), reader.Name(kScalingType), Printable(type), kRopeFactorsName);
  }
  std::optional<Json> factor = reader.Number(kScalingFactor);
  if (!factor) factor = reader.Number("rope.scale_linear");  // of old files
  if (!factor || *factor == 0 || *factor == 1) return nullptr;
  return {{"rope_type", kLinear}, {"factor", *factor}};
}

// The same of the factors in rope_freqs.weight, with the other facts of the model in `config`.
Json FactorScaling(const Checkpoint& checkpoint, const TensorView& tensor, const KeyReader& reader,
                   ModelConfig config) {
  if (tensor.shape != std::vector<uint64_t>{config.head_dim / 2}) {
    Fail("{}: tensor {} has shape {}, expected {}", tensor.file, tensor.name, ShapeText(tensor.shape),
         ShapeText({config.head_dim / 2}));
  }
  std::vector<float> factors(tensor.elements());
  ReadFiniteFloats(tensor, 0, factors);
  checkpoint.Release(tensor);
  if (std::all_of(factors.begin(), factors.end(), [](float factor) { return factor == 1.0f; })) return nullptr;
  const std::optional<Json> original = reader.Number(kOriginalPositions);
  if (!FindRopeScaling(factors, original ? std::optional(original->get<double>()) : std::nullopt, &config)) {
    Fail("{}: tensor {} holds factors from {:g} to {:g}, which are none of the llama3 scalings that are known",
         tensor.file, tensor.name, factors.front(), factors.back());
  }
  const RopeConfig& rope = config.ropes.front();
  return {{"rope_type", "llama3"},
          {"factor", rope.factor},
          {"low_freq_factor", rope.low_frequency},
          {"high_freq_factor", rope.high_frequency},
          {"original_max_position_embeddings", static_cast<uint64_t>(rope.original_positions)}};
}

}  // namespace

std::string GgufFileName(const Checkpoint& checkpoint) {
  return (checkpoint.directory() / checkpoint.files().front().name).string();
}

const GgufArchitecture& ReadGgufArchitecture(const Checkpoint& checkpoint) {
  MICA_CHECK(checkpoint.gguf() != nullptr);
  const std::string type = TextOr(checkpoint, kTypeKey, kModel);
  if (type != kModel) {
    Fail("{}: is a GGUF file of type \"{}\", expected \"{}\"; give the file with the model's weights",
         GgufFileName(checkpoint), Printable(type), kModel);
  }
  const std::string name = TextOr(checkpoint, kArchitectureKey, "");
  if (const GgufArchitecture* known = FindGgufArchitecture(name)) return *known;
  if (name.empty()) {
    Fail("{}: has no key {}, which says what model it is; supported are {}", GgufFileName(checkpoint),
         kArchitectureKey, GgufArchitectureNames());
  }
  Fail("{}: {} is \"{}\", which is not supported; supported are {}", GgufFileName(checkpoint), kArchitectureKey,
       Printable(name), GgufArchitectureNames());
}

ModelConfig ReadGgufConfig(const Checkpoint& checkpoint) {
  const GgufArchitecture& architecture = ReadGgufArchitecture(checkpoint);
  const ModelType& type = *FindModelType(architecture.model_types.front());
  const Family& family = *type.family;
  const KeyReader reader(checkpoint, architecture.name);
  const TensorNames& names = architecture.names;
  const auto has = [&](const std::string& tensor) { return checkpoint.Find(tensor) != nullptr; };

  Json json = {{"architectures", {type.architecture}}, {"model_type", type.name}};
  for (const KeyRow& row : kKeys) {
    const std::optional<Json> value = reader.Number(row.suffix);
    if (value) json[family.keys.*row.key] = *value;
    if (!value && row.required) {
      Fail("{}: has no key {}; it is not the whole file of a {} model", reader.where(), reader.Name(row.suffix),
           architecture.name);
    }
  }
  CheckFixedKeys(reader);
  const TensorView* embedding = checkpoint.Find(WeightName(names.embedding));
  if (!json.contains(family.keys.vocab)) {
    if (embedding == nullptr || embedding->shape.size() != 2)
      Fail("{}: has no matrix {}, which every model has", reader.where(), WeightName(names.embedding));
    json[family.keys.vocab] = embedding->shape[0];
  }
  json[family.keys.activation] = family.activation;
  json["tie_word_embeddings"] = !has(WeightName(names.head));
  const auto has_bias = [&](LinearKind kind) { return has(BiasName(LinearTensorName(names, 0, kind))); };
  if (type.biases == BiasRule::kConfig) {
    json[family.keys.attention_bias] = has_bias(LinearKind::kQ) && has_bias(LinearKind::kK) &&
                                       has_bias(LinearKind::kV) && has_bias(LinearKind::kO);
    json[family.keys.mlp_bias] =
        has_bias(LinearKind::kGate) && has_bias(LinearKind::kUp) && has_bias(LinearKind::kDown);
  }
  for (const char* token : {"bos_token_id", "eos_token_id"}) {
    const GgufValue* value = FindKey(*checkpoint.gguf(), fmt::format("tokenizer.ggml.{}", token));
    const std::optional<int64_t> id = value != nullptr ? WholeNumberOf(*value) : std::nullopt;
    if (id && *id >= 0 && *id < json[family.keys.vocab]) json[token] = *id;
  }
  Json scaling = LinearScaling(reader);
  const std::string where = reader.where() + ": its keys as config.json";
  const TensorView* factors = checkpoint.Find(kRopeFactorsName);
  if (factors != nullptr) {
    if (!scaling.is_null())
      Fail("{}: has both key {} and tensor {}, supported is one of them", reader.where(),
           reader.Name(kScalingFactor), kRopeFactorsName);
    scaling = FactorScaling(checkpoint, *factors, reader, ParseConfig(json, where));
  }
  if (!scaling.is_null()) json["rope_scaling"] = scaling;
  ModelConfig config = ParseConfig(json, where);
  CheckHeadWidths(reader, config);
  return config;
}

std::vector<GgufKey> ConfigKeysOf(const ModelConfig& config, const std::string& name) {
  const GgufArchitecture& architecture = GgufArchitectureOf(config);
  std::vector<GgufKey> keys = {{kArchitectureKey, std::string(architecture.name)},
                               {kTypeKey, std::string(kModel)},
                               {kNameKey, name}};
  const auto add = [&](const char* suffix, GgufValue value) {
    keys.push_back({fmt::format("{}.{}", architecture.name, suffix), std::move(value)});
  };
  for (const KeyRow& row : kKeys) add(row.suffix, row.value(config));
  add(kValueLength, Whole(config.head_dim));
  add(kRotated, Whole(config.head_dim));
  const RopeConfig& rope = config.ropes.front();
  if (rope.scaling == RopeScaling::kLinear) {
    add(kScalingType, std::string(kLinear));
    add(kScalingFactor, Real(rope.factor));
  } else if (rope.scaling == RopeScaling::kLlama3) {
    add(kOriginalPositions, Whole(static_cast<size_t>(rope.original_positions)));
  }
  if (config.ShortestSliding() != 0) {
    LogWarningOnce(
        "attention of this model sees {} tokens back; a {} GGUF file cannot say so, and its readers let it see "
        "all",
        config.ShortestSliding(), architecture.name);
  }
  return keys;
}

}  // namespace mica
