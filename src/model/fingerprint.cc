#include "model/fingerprint.h"

#include <fmt/format.h>

#include <vector>

#include "base/sha256.h"
#include "io/packed/facts.h"
#include "io/packed/packed_checkpoint.h"

namespace mica {
namespace {

// Each fact with its value written out in full, so that equal text means equal arithmetic.
std::string FactsOf(const ModelConfig& config) {
  std::string text;
  const auto add = [&](const char* name, const auto& value) { text += fmt::format("{} {}\n", name, value); };
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
  add("rope_theta", config.rope_theta);
  add("rope_scaling", static_cast<int>(config.rope_scaling));
  if (config.rope_scaling != RopeScaling::kNone) add("rope_factor", config.rope_factor);
  if (config.rope_scaling == RopeScaling::kLlama3) {
    add("rope_low_frequency", config.rope_low_frequency);
    add("rope_high_frequency", config.rope_high_frequency);
    add("rope_original_positions", config.rope_original_positions);
  }
  add("tied_head", config.tied_head);
  add("attention_bias", config.attention_bias);
  add("output_bias", config.output_bias);
  add("mlp_bias", config.mlp_bias);
  add("sliding_window", config.sliding_window);
  return text;
}

}  // namespace

std::string ModelFingerprint(const ModelWeights& weights) {
  const Checkpoint& checkpoint = weights.checkpoint();
  Sha256 all;
  all.Update(FactsOf(weights.config()));
  std::vector<const TensorView*> read;
  for (const TensorView& tensor : checkpoint.tensors()) {
    if (weights.packed() || weights.IsRead(tensor.name)) read.push_back(&tensor);
  }
  if (weights.packed()) {
    for (const std::string& name : PackedNames(checkpoint))
      all.Update(fmt::format("{} {}\n", name, checkpoint.metadata().at(MatrixKey(name))));
  }
  const std::vector<std::string> hashes = checkpoint.Hashes(
      read, [&](const TensorView& tensor) { return IsFloat(tensor) && weights.IsRead(tensor.name); });
  for (size_t i = 0; i < read.size(); ++i) {
    all.Update(fmt::format("{} {} {} {}{}\n", read[i]->name, TypeName(*read[i]), ShapeText(read[i]->shape),
                           hashes[i], read[i]->row_order != nullptr ? " in another order of rows" : ""));
  }
  return all.Hex();
}

}  // namespace mica
