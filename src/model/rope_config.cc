#include "model/rope_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "model/rope.h"

namespace mica {
namespace {

constexpr double kMaxTheta = 1e12, kMaxFactor = 1e6, kMaxPositions = 1e9;
constexpr const char* kFull = "full_attention";
constexpr const char* kSliding = "sliding_attention";
constexpr const char* kPartial = "partial_rotary_factor";
constexpr const char* kOriginal = "original_max_position_embeddings";
constexpr const char* kKnown = "default, linear, dynamic, llama3, yarn and longrope";

// Of a head's channels, those that turn.
size_t TurningChannels(const ConfigReader& reader, const ModelConfig& config, size_t otherwise) {
  const Json* value = reader.Find(kPartial);
  if (value == nullptr) return otherwise;
  if (!config.type->partial_rope) {
    if (*value != 1.0) reader.Refuse(kPartial, *value, "supported is 1 for model_type {}", config.model_type);
    return config.head_dim;
  }
  const double share = reader.Positive(kPartial, 1.0);
  const size_t channels = static_cast<size_t>(static_cast<double>(config.head_dim) * share);
  if (channels < 2 || channels % 2 != 0)
    reader.Refuse(kPartial, *value, "expected an even number of the {} channels of a head", config.head_dim);
  return channels;
}

void ReadYarn(const ConfigReader& rope, const ModelConfig& config, RopeConfig& result) {
  result.factor = rope.Positive("factor", kMaxFactor);
  result.original_positions =
      rope.Positive(kOriginal, kMaxPositions, static_cast<double>(config.max_positions));
  result.beta_fast = rope.Positive("beta_fast", kMaxFactor, 32.0);
  result.beta_slow = rope.Positive("beta_slow", kMaxFactor, 1.0);
  result.whole_bounds = rope.Flag("truncate", true);
  const double scale = rope.NotNegative("mscale", 0.0), scale_all = rope.NotNegative("mscale_all_dim", 0.0);
  const double usual = scale != 0.0 && scale_all != 0.0
                           ? YarnAmplitude(result.factor, scale) / YarnAmplitude(result.factor, scale_all)
                           : YarnAmplitude(result.factor);
  result.amplitude = rope.Positive("attention_factor", kMaxFactor, usual);
  if (result.beta_fast <= result.beta_slow)
    Fail("{}: beta_fast is {:g}, expected more than beta_slow, {:g}", rope.where(), result.beta_fast,
         result.beta_slow);
}

void ReadLongrope(const ConfigReader& reader, const ConfigReader& rope, const ModelConfig& config,
                  RopeConfig& result) {
  result.short_factors = rope.Positives("short_factor", result.channels / 2);
  result.long_factors = rope.Positives("long_factor", result.channels / 2);
  const double positions = static_cast<double>(config.max_positions);
  const Json* const original = reader.Find(kOriginal);
  result.original_positions = rope.Positive(
      kOriginal, kMaxPositions,
      original != nullptr ? reader.Positive(kOriginal, kMaxPositions) : positions);
  const double longer = rope.Positive("factor", kMaxFactor, positions / result.original_positions);
  const double usual =
      longer <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(longer) / std::log(result.original_positions));
  result.amplitude = rope.Positive("attention_factor", kMaxFactor, usual);
}

// `base` with what `key` ("rope_scaling" or "rope_parameters", or an object inside it) says besides.
RopeConfig ReadObject(const ConfigReader& reader, const std::string& key, const Json& object,
                      const ModelConfig& config, RopeConfig base) {
  if (!object.is_object()) reader.Refuse(key.c_str(), object, "expected null or an object with rope_type");
  const ConfigReader rope(object, fmt::format("{}: {}", reader.where(), key));
  for (const auto& [name, value] : object.items()) {
    if (value.is_object())
      rope.Refuse(name.c_str(), value, "supported is one rotary embedding for all layers of model_type {}",
                  config.model_type);
  }
  const char* const theta = config.family->keys.rope_theta;
  RopeConfig result = std::move(base);
  result.theta = rope.Positive(theta, kMaxTheta, result.theta);
  result.channels = TurningChannels(rope, config, result.channels);
  const std::string type = rope.Text("rope_type", rope.Text("type", ""));
  if (type.empty()) {
    // Numbers of a scaling that nobody named: transformers refuses them, or takes them for "default".
    for (const auto& [name, value] : object.items()) {
      if (name != theta && name != kPartial && !value.is_null())
        rope.Refuse(name.c_str(), value, "but there is no rope_type beside it; supported are {}", kKnown);
    }
    return result;
  }
  if (type == "default") return result;
  if (type == "linear") {
    result.scaling = RopeScaling::kLinear;
    result.factor = rope.Positive("factor", kMaxFactor);
  } else if (type == "dynamic") {
    result.scaling = RopeScaling::kDynamic;
    result.factor = rope.Positive("factor", kMaxFactor);
    result.original_positions = static_cast<double>(config.max_positions);
  } else if (type == "llama3") {
    result.scaling = RopeScaling::kLlama3;
    result.factor = rope.Positive("factor", kMaxFactor);
    result.low_frequency = rope.Positive("low_freq_factor", kMaxFactor);
    result.high_frequency = rope.Positive("high_freq_factor", kMaxFactor);
    result.original_positions = rope.Positive(kOriginal, kMaxPositions);
    if (result.high_frequency <= result.low_frequency) {
      rope.Refuse("high_freq_factor", *rope.Find("high_freq_factor"),
                  "expected more than low_freq_factor, {:g}", result.low_frequency);
    }
  } else if (type == "yarn") {
    result.scaling = RopeScaling::kYarn;
    ReadYarn(rope, config, result);
  } else if (type == "longrope" || type == "su") {  // its first name
    result.scaling = RopeScaling::kLongrope;
    ReadLongrope(reader, rope, config, result);
  } else {
    Fail("{}: {} has type \"{}\", which is not supported; supported are {}", reader.where(), key, type, kKnown);
  }
  return result;
}

// The second rotary embedding that sliding layers have, without what config.json says of it by itself.
RopeConfig LocalRope(const ConfigReader& reader, const ModelConfig& config, const RopeConfig& plain) {
  RopeConfig local = plain;
  if (const char* const key = config.family->keys.local_rope_theta; key != nullptr)
    local.theta = reader.Positive(key, kMaxTheta, 10000.0);
  return local;
}

}  // namespace

const char* RopeScalingName(RopeScaling scaling) {
  constexpr std::array kNames = {"none", "linear", "dynamic", "llama3", "yarn", "longrope"};
  return kNames[static_cast<size_t>(scaling)];
}

void ReadRopes(const ConfigReader& reader, ModelConfig& config) {
  const bool local = config.type->local_rope;
  RopeConfig plain;
  plain.theta = reader.Positive(config.family->keys.rope_theta, kMaxTheta, config.type->rope_theta);
  plain.channels = TurningChannels(reader, config, config.head_dim);
  RopeConfig rope = plain, of_sliding = LocalRope(reader, config, plain);
  const Json* scaling = reader.Find("rope_scaling");
  const Json* parameters = reader.Find("rope_parameters");
  if (parameters != nullptr && local && parameters->is_object() && parameters->contains(kFull)) {
    const ConfigReader inner(*parameters, reader.where() + ": rope_parameters");
    rope = ReadObject(inner, kFull, (*parameters)[kFull], config, plain);
    if (const Json* object = inner.Find(kSliding))
      of_sliding = ReadObject(inner, kSliding, *object, config, of_sliding);
  } else if (parameters != nullptr) {
    rope = ReadObject(reader, "rope_parameters", *parameters, config, plain);
    if (local && config.family->keys.local_rope_theta == nullptr) of_sliding.theta = rope.theta;
  }
  if (scaling != nullptr) {
    RopeConfig base = plain;
    base.theta = rope.theta;
    const RopeConfig by_scaling = ReadObject(reader, "rope_scaling", *scaling, config, base);
    if (parameters != nullptr && by_scaling != rope)
      reader.Refuse("rope_scaling", *scaling,
                    "which is not what rope_parameters says; remove the one that is wrong");
    rope = by_scaling;
  }
  config.ropes = {rope};
  if (!local || of_sliding == rope) return;
  config.ropes.push_back(of_sliding);
  for (LayerTraits& layer : config.traits) {
    if (layer.sliding != 0) layer.rope = 1;
  }
}

}  // namespace mica
