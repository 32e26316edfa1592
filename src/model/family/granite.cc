// Granite 3 (dense).
#include "model/config.h"
#include "model/config_reader.h"
#include "model/family/family.h"

namespace mica {

extern const Family kGranite;

namespace {

void DescribeGranite(const ConfigReader& reader, ModelConfig& config) {
  constexpr double kMost = 1e6;
  config.embedding_factor = static_cast<float>(reader.Positive("embedding_multiplier", kMost, 1.0));
  config.residual_factor = static_cast<float>(reader.Positive("residual_multiplier", kMost, 1.0));
  config.logit_factor = static_cast<float>(1.0 / reader.Positive("logits_scaling", kMost, 1.0));
  config.score_factor = static_cast<float>(reader.Positive("attention_multiplier", kMost, 1.0));
}

constexpr ModelType kTypes[] = {{.family = &kGranite,
                                 .name = "granite",
                                 .architecture = "GraniteForCausalLM",
                                 .note = "multipliers of embedding, scores, branches and logits",
                                 .max_positions = 2048,
                                 .biases = BiasRule::kConfig,
                                 .bos = 1,
                                 .example = R"({"embedding_multiplier": 12.0, "logits_scaling": 4.0,
                                     "attention_multiplier": 0.1, "residual_multiplier": 0.22})",
                                 .describe = DescribeGranite}};

}  // namespace

constexpr Family kGranite = {.types = kTypes, .keys = kUsualKeys, .names = kUsualNames};

}  // namespace mica
