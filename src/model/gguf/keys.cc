#include "model/gguf/keys.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "model/gguf/names.h"
#include "model/gguf/rope.h"
#include "model/rope.h"

namespace mica {
namespace {

constexpr std::string_view kMistral3 = "mistral3", kPhi3 = "phi3", kSmolLm3 = "smollm3";
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

// A key that only some architectures have, and the key of config.json that says the same.
struct OwnKeyRow {
  const char* architecture;
  const char* suffix;
  const char* key;
  bool required;  // of a file that is read
  GgufValue (*value)(const ModelConfig&);
};
GgufValue SlidingWindow(const ModelConfig& c) { return Whole(c.ShortestSliding()); }
constexpr const char* kSlidingWindow = "attention.sliding_window";
constexpr OwnKeyRow kOwnKeys[] = {
    {"gemma2", "attn_logit_softcapping", "attn_logit_softcapping", false,
     [](const ModelConfig& c) { return Real(c.attention_cap); }},
    {"gemma2", "final_logit_softcapping", "final_logit_softcapping", false,
     [](const ModelConfig& c) { return Real(c.logit_cap); }},
    {"gemma2", kSlidingWindow, "sliding_window", false, SlidingWindow},
    {"gemma3", kSlidingWindow, "sliding_window", true, SlidingWindow},
    {"gemma3", "rope.freq_base_swa", "rope_local_base_freq", false,
     [](const ModelConfig& c) { return Real(c.ropes.back().theta); }},
    {"olmo2", kSlidingWindow, "sliding_window", false, SlidingWindow},
    {"phi3", kSlidingWindow, "sliding_window", false, SlidingWindow},
    {"granite", "attention.scale", "attention_multiplier", true,
     [](const ModelConfig& c) { return Real(c.score_factor); }},
    {"granite", "embedding_scale", "embedding_multiplier", true,
     [](const ModelConfig& c) { return Real(c.embedding_factor); }},
    {"granite", "residual_scale", "residual_multiplier", true,
     [](const ModelConfig& c) { return Real(c.residual_factor); }},
    {"granite", "logit_scale", "logits_scaling", true,
     [](const ModelConfig& c) { return Real(1.0 / c.logit_factor); }},
};
bool Owns(std::string_view architecture, std::string_view suffix) {
  return std::ranges::any_of(
      kOwnKeys, [&](const OwnKeyRow& row) { return row.architecture == architecture && row.suffix == suffix; });
}

// Keys that must say what is computed anyway, of architectures that do not own them.
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
constexpr const char* kTemperature = "attention.temperature_scale";  // read where the architecture is mistral3

constexpr const char* kLinear = "linear";
constexpr const char* kScalingType = "rope.scaling.type";
constexpr const char* kScalingFactor = "rope.scaling.factor";
constexpr const char* kYarn = "yarn";
constexpr const char* kAmplitude = "rope.scaling.attn_factor";
constexpr const char* kYarnLogMultiplier = "rope.scaling.yarn_log_multiplier";
constexpr const char* kBetaFast = "rope.scaling.yarn_beta_fast";
constexpr const char* kBetaSlow = "rope.scaling.yarn_beta_slow";
constexpr const char* kSlidingPattern = "attention.sliding_window_pattern";
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

void CheckFixedKeys(const KeyReader& reader, const GgufArchitecture& architecture) {
  for (const FixedRow& row : kFixed) {
    if (Owns(architecture.name, row.suffix)) continue;
    if (row.suffix == std::string_view(kTemperature) && architecture.name == kMistral3) continue;
    const std::optional<Json> value = reader.Number(row.suffix);
    if (!value || *value == 0 || *value == row.value) continue;
    Fail("{}: key {} is {}: {}, which is not supported", reader.where(), reader.Name(row.suffix), value->dump(),
         row.what);
  }
}

// The widths of values and of what turns, however the head's is given.
void CheckHeadWidths(const KeyReader& reader, const ModelConfig& config) {
  const std::pair<const char*, size_t> widths[] = {{kValueLength, config.head_dim},
                                                   {kRotated, config.ropes.front().channels}};
  for (const auto& [suffix, width] : widths) {
    const std::optional<Json> value = reader.Number(suffix);
    if (value && *value != width) {
      Fail("{}: key {} is {}, supported is {} of heads of {} channels", reader.where(), reader.Name(suffix),
           value->dump(), width, config.head_dim);
    }
  }
}

double NumberOr(const KeyReader& reader, const char* suffix, double otherwise) {
  const std::optional<Json> value = reader.Number(suffix);
  return value ? value->get<double>() : otherwise;
}

// Readers multiply the amplitude that a file gives, 1 without one, by the usual one of the factor.
Json YarnScaling(const KeyReader& reader) {
  const double factor = NumberOr(reader, kScalingFactor, 1.0), all = NumberOr(reader, kYarnLogMultiplier, 0.0);
  const double usual = YarnAmplitude(factor, 1.0) / (all != 0.0 ? YarnAmplitude(factor, all) : 1.0);
  Json scaling = {{"rope_type", kYarn},
                  {"factor", factor},
                  {"attention_factor", usual * NumberOr(reader, kAmplitude, 1.0)},
                  {"beta_fast", NumberOr(reader, kBetaFast, 32.0)},
                  {"beta_slow", NumberOr(reader, kBetaSlow, 1.0)}};
  if (const std::optional<Json> original = reader.Number(kOriginalPositions))
    scaling["original_max_position_embeddings"] = *original;
  return scaling;
}

// rope_scaling of config.json, or null; of linear and yarn.
Json NumberedScaling(const KeyReader& reader) {
  const std::string type = reader.Text(kScalingType).value_or(kLinear);
  if (type == "none" || type == "longrope") return nullptr;  // the factors of the latter are tensors
  if (type == kYarn) return YarnScaling(reader);
  if (type != kLinear) {
    Fail("{}: key {} is \"{}\", which is not supported; supported are none, linear, yarn, longrope and the "
         "factors of {}",
         reader.where(), reader.Name(kScalingType), Printable(type), kRopeFactorsName);
  }
  std::optional<Json> factor = reader.Number(kScalingFactor);
  if (!factor) factor = reader.Number("rope.scale_linear");  // of old files
  if (!factor || *factor == 0 || *factor == 1) return nullptr;
  return {{"rope_type", kLinear}, {"factor", *factor}};
}

std::vector<float> FactorsOf(const Checkpoint& checkpoint, const TensorView& tensor, const ModelConfig& config) {
  const std::vector<uint64_t> expected = {config.ropes.front().channels / 2};
  if (tensor.shape != expected) {
    Fail("{}: tensor {} has shape {}, expected {}", tensor.file, tensor.name, ShapeText(tensor.shape),
         ShapeText(expected));
  }
  std::vector<float> factors(tensor.elements());
  ReadFiniteFloats(tensor, 0, factors);
  checkpoint.Release(tensor);
  return factors;
}

// longrope's rope_scaling, or null where its tensors are not there.
Json LongropeScaling(const Checkpoint& checkpoint, const KeyReader& reader, const ModelConfig& config) {
  const TensorView* const longer = checkpoint.Find(kRopeFactorsLong);
  const TensorView* const shorter = checkpoint.Find(kRopeFactorsShort);
  if (longer == nullptr && shorter == nullptr) return nullptr;
  if (longer == nullptr || shorter == nullptr)
    Fail("{}: has one of {} and {}, expected both or none", reader.where(), kRopeFactorsLong, kRopeFactorsShort);
  Json scaling = {{"rope_type", "longrope"},
                  {"long_factor", FactorsOf(checkpoint, *longer, config)},
                  {"short_factor", FactorsOf(checkpoint, *shorter, config)},
                  {"attention_factor", NumberOr(reader, kAmplitude, 1.0)}};
  if (const std::optional<Json> original = reader.Number(kOriginalPositions))
    scaling["original_max_position_embeddings"] = *original;
  return scaling;
}

// The same of the factors in rope_freqs.weight, with the other facts of the model in `config`.
Json FactorScaling(const Checkpoint& checkpoint, const TensorView& tensor, const KeyReader& reader,
                   ModelConfig config) {
  const std::vector<float> factors = FactorsOf(checkpoint, tensor, config);
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

GgufValue FlagArray(std::vector<bool> flags) { return GgufArray{std::move(flags)}; }
std::optional<std::vector<bool>> FlagsOf(const GgufArray& array) {
  const std::vector<bool>* flags = std::get_if<std::vector<bool>>(&array.elements);
  return flags == nullptr ? std::nullopt : std::optional(*flags);
}

const ModelType& TypeOf(const GgufArchitecture& architecture, const KeyReader& reader) {
  const bool slides = Owns(architecture.name, kSlidingWindow) && NumberOr(reader, kSlidingWindow, 0.0) != 0.0;
  const auto& types = architecture.model_types;
  return *FindModelType(slides ? types.back() : types.front());
}

// Which layers slide: a period or a flag for each layer; without the key what config.json means without it.
void ReadSlidingPattern(const KeyReader& reader, Json& json) {
  const GgufValue* value = reader.Find(kSlidingPattern);
  if (value == nullptr) return;
  if (const std::optional<int64_t> period = WholeNumberOf(*value); period && *period > 0) {
    json["sliding_window_pattern"] = *period;
    return;
  }
  const GgufArray* flags = std::get_if<GgufArray>(value);
  const std::optional<std::vector<bool>> slides = flags != nullptr ? FlagsOf(*flags) : std::nullopt;
  if (!slides) {
    Fail("{}: key {} has type {}, expected a whole number or an array of BOOL", reader.where(),
         reader.Name(kSlidingPattern), ValueTypeName(*value));
  }
  for (const bool one : *slides) json["layer_types"].push_back(one ? "sliding_attention" : "full_attention");
}

// What the architecture alone has, as its config.json says it.
void ReadOwnKeys(const KeyReader& reader, const GgufArchitecture& architecture, Json& json) {
  for (const OwnKeyRow& row : kOwnKeys) {
    if (row.architecture != std::string_view(architecture.name)) continue;
    const std::optional<Json> value = reader.Number(row.suffix);
    if (!value && row.required) {
      Fail("{}: has no key {}; it is not the whole file of a {} model", reader.where(), reader.Name(row.suffix),
           architecture.name);
    }
    if (value) json[row.key] = *value == 0 ? Json() : *value;
  }
  if (Owns(architecture.name, kSlidingWindow)) ReadSlidingPattern(reader, json);
  const auto number = [&](const char* key) { return json.contains(key) ? json[key].get<double>() : 0.0; };
  const double heads = number("num_attention_heads"), hidden = number("hidden_size");
  if (architecture.layers_of_wide_scores != 0 && heads > 0) {
    const bool wide = number("num_hidden_layers") == static_cast<double>(architecture.layers_of_wide_scores);
    json["query_pre_attn_scalar"] = wide || !json.contains("head_dim") ? hidden / heads : number("head_dim");
  }
  if (architecture.name == kPhi3 && heads > 0) {
    const double head_dim = json.contains("head_dim") ? number("head_dim") : hidden / heads;
    json["partial_rotary_factor"] = NumberOr(reader, kRotated, head_dim) / head_dim;
  }
}

// Refuses what the keys of an architecture cannot say and its readers would compute in another way.
void CheckWritable(const ModelConfig& config, const GgufArchitecture& architecture) {
  const auto refuse = [&](const std::string& what) {
    Fail("a {} GGUF file cannot say that {}; its readers would compute another model", architecture.name, what);
  };
  const bool wide = config.layers == architecture.layers_of_wide_scores;
  const double width = static_cast<double>(wide ? config.hidden / config.heads : config.head_dim);
  if (!Owns(architecture.name, "attention.scale") &&
      std::abs(config.score_factor * std::sqrt(width) - 1.0) > 1e-5)
    refuse(fmt::format("attention scores are multiplied by {:g}, and not by 1 / sqrt({})", config.score_factor, width));
  const bool capped = config.attention_cap != 0.0f || config.logit_cap != 0.0f;
  if (capped && !Owns(architecture.name, "final_logit_softcapping")) refuse("scores or logits are capped");
  if (!config.ropes.front().whole_bounds) refuse("the bounds of yarn are not rounded (\"truncate\" is false)");
  if (config.ropes.front().scaling == RopeScaling::kDynamic) refuse("its rotary embedding is scaled dynamically");
  for (size_t layer = 0; layer < config.layers; ++layer) {
    const bool turns = architecture.name != kSmolLm3 || (layer + 1) % 4 != 0;
    // Readers of gemma2 know which layers slide.
    const bool slides = config.traits[layer].sliding != 0;
    if (architecture.name == std::string_view("gemma2") && config.ShortestSliding() != 0 && slides != (layer % 2 == 0))
      refuse(fmt::format("attention of layer {} {}", layer, slides ? "slides" : "sees all tokens"));
    if (config.traits[layer].rope.has_value() != turns)
      refuse(fmt::format("layer {} {} a rotary embedding", layer, turns ? "is without" : "has"));
  }
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
  const KeyReader reader(checkpoint, architecture.name);
  const ModelType& type = TypeOf(architecture, reader);
  const Family& family = *type.family;
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
  CheckFixedKeys(reader, architecture);
  ReadOwnKeys(reader, architecture, json);
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
  Json scaling = NumberedScaling(reader);
  const std::string where = reader.where() + ": its keys as config.json";
  const TensorView* factors = checkpoint.Find(kRopeFactorsName);
  if (factors != nullptr) {
    if (!scaling.is_null())
      Fail("{}: has both key {} and tensor {}, supported is one of them", reader.where(),
           reader.Name(kScalingFactor), kRopeFactorsName);
    scaling = FactorScaling(checkpoint, *factors, reader, ParseConfig(json, where));
  } else if (scaling.is_null()) {
    scaling = LongropeScaling(checkpoint, reader, ParseConfig(json, where));
  }
  if (const double slope = NumberOr(reader, kTemperature, 0.0); slope != 0.0 && architecture.name == kMistral3) {
    scaling["rope_theta"] = json[family.keys.rope_theta];
    scaling["llama_4_scaling_beta"] = slope;
    json["rope_parameters"] = scaling;
  } else if (!scaling.is_null()) {
    json["rope_scaling"] = scaling;
  }
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
  CheckWritable(config, architecture);
  for (const KeyRow& row : kKeys) add(row.suffix, row.value(config));
  for (const OwnKeyRow& row : kOwnKeys) {
    // A window of 0 says that none slides, which phi3 alone wants to be told.
    const bool told = row.suffix != std::string_view(kSlidingWindow) || config.ShortestSliding() != 0 ||
                      architecture.name == kPhi3;
    if (row.architecture == std::string_view(architecture.name) && told) add(row.suffix, row.value(config));
  }
  const RopeConfig& rope = config.ropes.front();
  add(kValueLength, Whole(config.head_dim));
  add(kRotated, Whole(rope.channels));
  if (rope.scaling == RopeScaling::kLinear || rope.scaling == RopeScaling::kYarn) {
    add(kScalingType, std::string(rope.scaling == RopeScaling::kLinear ? kLinear : kYarn));
    add(kScalingFactor, Real(rope.factor));
  }
  if (rope.original_positions != 0.0) add(kOriginalPositions, Whole(static_cast<size_t>(rope.original_positions)));
  if (rope.scaling == RopeScaling::kYarn) {
    add(kBetaFast, Real(rope.beta_fast));
    add(kBetaSlow, Real(rope.beta_slow));
    add(kAmplitude, Real(rope.amplitude / YarnAmplitude(rope.factor, 1.0)));
  } else if (rope.scaling == RopeScaling::kLongrope) {
    add(kAmplitude, Real(rope.amplitude));
  }
  if (config.query_slope != 0.0) add(kTemperature, Real(config.query_slope));
  if (config.ShortestSliding() == 0) return keys;
  if (Owns(architecture.name, kSlidingWindow) && architecture.name != kPhi3) {
    std::vector<bool> slides;
    for (const LayerTraits& layer : config.traits) slides.push_back(layer.sliding != 0);
    add(kSlidingPattern, FlagArray(slides));
  } else {
    LogWarningOnce(
        "attention of this model sees {} tokens back; readers of a {} GGUF file let it see all",
        config.ShortestSliding(), architecture.name);
  }
  return keys;
}

}  // namespace mica
