#include "model/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/sha256.h"
#include "io/packed/facts.h"
#include "io/packed/packed_checkpoint.h"

namespace mica {
namespace {

// As fingerprints have had it from the beginning.
int NumberOf(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::kNone:
      return 0;
    case RopeScaling::kLinear:
      return 1;
    case RopeScaling::kLlama3:
      return 2;
    case RopeScaling::kDynamic:
      return 3;
    case RopeScaling::kYarn:
      return 4;
    case RopeScaling::kLongrope:
      return 5;
  }
  MICA_CHECK(false);
}

// What makes a model another than one of LLaMA's pattern; nothing for those.
void AddTraits(const ModelConfig& config, std::string& text) {
  const auto add = [&](const char* name, const auto& value, const auto& usual) {
    if (value != usual) text += fmt::format("{} {}\n", name, value);
  };
  add("activation", static_cast<int>(config.activation), 0);
  for (const NormKind norm : kNormKinds)
    add("norm", fmt::format("{} {}", static_cast<int>(norm), config.Has(norm)),
        fmt::format("{} {}", static_cast<int>(norm), kInputNorms.contains(norm)));
  add("norm_offset", config.family->norm_offset, 0.0f);
  add("wide_head_norms", config.wide_head_norms, false);
  add("score_factor", config.score_factor, 1.0f / std::sqrt(static_cast<float>(config.head_dim)));
  add("attention_cap", config.attention_cap, 0.0f);
  add("logit_cap", config.logit_cap, 0.0f);
  add("embedding_factor", config.embedding_factor, 1.0f);
  add("residual_factor", config.residual_factor, 1.0f);
  add("logit_factor", config.logit_factor, 1.0f);
  add("query_slope", config.query_slope, 0.0);
  if (config.query_slope != 0.0) add("query_positions", config.query_positions, 0.0);
  const LayerTraits usual{.sliding = config.ShortestSliding(), .rope = 0};
  for (size_t layer = 0; layer < config.layers; ++layer) {
    const LayerTraits& traits = config.traits[layer];
    if (traits.sliding == usual.sliding && traits.rope == usual.rope) continue;
    text += fmt::format("layer {} {} {}\n", layer, traits.sliding,
                        traits.rope ? static_cast<int>(*traits.rope) : -1);
  }
}

// Each fact with its value written out in full, so that equal text means equal arithmetic.
std::string FactsOf(const ModelConfig& config) {
  std::string text;
  const auto add = [&](const char* name, const auto& value) { text += fmt::format("{} {}\n", name, value); };
  const auto add_longer = [&](const RopeConfig& rope) {
    if (rope.scaling == RopeScaling::kLlama3) {
      add("rope_low_frequency", rope.low_frequency);
      add("rope_high_frequency", rope.high_frequency);
    }
    add("rope_original_positions", rope.original_positions);
    if (rope.scaling == RopeScaling::kYarn)
      add("rope_yarn", fmt::format("{} {} {}", rope.beta_fast, rope.beta_slow, rope.whole_bounds));
    if (rope.amplitude != 1.0) add("rope_amplitude", rope.amplitude);
    for (const double factor : rope.short_factors) add("rope_short", factor);
    for (const double factor : rope.long_factors) add("rope_long", factor);
  };
  add("model_type", config.model_type);
  add("layers", config.layers);
  add("hidden", config.hidden);
  add("heads", config.heads);
  add("kv_heads", config.kv_heads);
  add("head_dim", config.head_dim);
  add("ffn", config.ffn);
  add("vocab", config.vocab);
  add("max_positions", config.max_positions);
  add("norm_epsilon", config.norm_epsilon);
  for (const RopeConfig& rope : config.ropes) {
    add("rope_theta", rope.theta);
    add("rope_scaling", NumberOf(rope.scaling));
    if (rope.scaling != RopeScaling::kNone) add("rope_factor", rope.factor);
    if (rope.channels != config.head_dim) add("rope_channels", rope.channels);
    if (rope.original_positions != 0) add_longer(rope);
  }
  add("tied_head", config.tied_head);
  add("attention_bias", config.attention_bias);
  add("output_bias", config.output_bias);
  add("mlp_bias", config.mlp_bias);
  add("sliding_window", config.ShortestSliding());
  AddTraits(config, text);
  return text;
}

// Tensors that count, by name.
std::vector<const TensorView*> TensorsRead(const ModelWeights& weights) {
  std::vector<const TensorView*> read;
  for (const TensorView& tensor : weights.checkpoint().tensors()) {
    if (weights.packed() || weights.IsRead(tensor.name)) read.push_back(&tensor);
  }
  return read;
}

}  // namespace

std::vector<std::string> TensorHashes(const ModelWeights& weights, size_t rank, size_t size,
                                      const std::stop_token& stop) {
  const std::vector<const TensorView*> read = TensorsRead(weights);
  // Each goes to the rank that has least, the first of those.
  std::vector<uint64_t> bytes(size, 0);
  std::vector<const TensorView*> mine;
  std::vector<size_t> places;
  for (size_t i = 0; i < read.size(); ++i) {
    const auto least = std::min_element(bytes.begin(), bytes.end());
    *least += read[i]->data.size();
    if (static_cast<size_t>(least - bytes.begin()) != rank) continue;
    mine.push_back(read[i]);
    places.push_back(i);
  }
  const std::vector<std::string> found = weights.checkpoint().Hashes(mine, [&](const TensorView& tensor) {
    if (stop.stop_requested()) Fail("the fingerprint was not finished");
    return IsFloat(tensor) && weights.IsRead(tensor.name);
  });
  std::vector<std::string> hashes(read.size());
  for (size_t i = 0; i < places.size(); ++i) hashes[places[i]] = found[i];
  return hashes;
}

std::string ModelFingerprint(const ModelWeights& weights, std::span<const std::string> hashes) {
  const Checkpoint& checkpoint = weights.checkpoint();
  Sha256 all;
  all.Update(FactsOf(weights.config()));
  if (weights.packed()) {
    for (const std::string& name : PackedNames(checkpoint))
      all.Update(fmt::format("{} {}\n", name, checkpoint.metadata().at(MatrixKey(name))));
  }
  const std::vector<const TensorView*> read = TensorsRead(weights);
  MICA_CHECK(hashes.size() == read.size());
  for (size_t i = 0; i < read.size(); ++i) {
    all.Update(fmt::format("{} {} {} {}{}\n", read[i]->name, TypeName(*read[i]), ShapeText(read[i]->shape),
                           hashes[i], read[i]->row_order != nullptr ? " in another order of rows" : ""));
  }
  return all.Hex();
}

std::string ModelFingerprint(const ModelWeights& weights) {
  return ModelFingerprint(weights, TensorHashes(weights, 0, 1, {}));
}

}  // namespace mica
