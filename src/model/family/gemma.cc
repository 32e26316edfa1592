// Gemma, Gemma 2, Gemma 3 (text): norms multiply by one more than the weight that is stored, embeddings by the
// root of their width.
#include <cmath>

#include "model/config.h"
#include "model/config_reader.h"
#include "model/family/family.h"

namespace mica {

extern const Family kGemma1, kGemma2;

namespace {

constexpr double kMostCap = 1e6;

void DescribeGemma(const ConfigReader&, ModelConfig& config) {
  config.embedding_factor = std::sqrt(static_cast<float>(config.hidden));
}

void DescribeScores(const ConfigReader& reader, ModelConfig& config) {
  DescribeGemma(reader, config);
  config.score_factor =
      static_cast<float>(1.0 / std::sqrt(reader.Positive("query_pre_attn_scalar", 1e6, 256.0)));
}

void DescribeGemma2(const ConfigReader& reader, ModelConfig& config) {
  DescribeScores(reader, config);
  config.attention_cap = static_cast<float>(reader.PositiveOrNull("attn_logit_softcapping", kMostCap, 50.0));
  config.logit_cap = static_cast<float>(reader.PositiveOrNull("final_logit_softcapping", kMostCap, 30.0));
}

void DescribeGemma3(const ConfigReader& reader, ModelConfig& config) {
  DescribeScores(reader, config);
  config.attention_cap = static_cast<float>(reader.PositiveOrNull("attn_logit_softcapping", kMostCap, 0.0));
  config.logit_cap = static_cast<float>(reader.PositiveOrNull("final_logit_softcapping", kMostCap, 0.0));
}

constexpr const char* kActivation = "gelu_pytorch_tanh";
constexpr float kNormOffset = 1.0f;

constexpr ConfigKeys kKeys = [] {
  ConfigKeys keys = kUsualKeys;
  keys.activation = "hidden_activation";  // hidden_act of the first Gemma says gelu and means this one
  keys.local_rope_theta = "rope_local_base_freq";
  return keys;
}();

constexpr ModelType kTypes1[] = {{.family = &kGemma1,
                                  .name = "gemma",
                                  .architecture = "GemmaForCausalLM",
                                  .max_positions = 8192,
                                  .biases = BiasRule::kConfig,
                                  .tied_head = true,
                                  .head_dim = 256,
                                  .bos = 2,
                                  .describe = DescribeGemma}};

constexpr ModelType kTypes2[] = {
    {.family = &kGemma2,
     .name = "gemma2",
     .architecture = "Gemma2ForCausalLM",
     .note = "four norms, capped scores and logits, every other layer slides",
     .max_positions = 8192,
     .sliding = SlidingRule::kPeriod,
     .sliding_window = 4096,
     .sliding_period = 2,
     .biases = BiasRule::kConfig,
     .norms = kInputNorms | kOutputNorms,
     .tied_head = true,
     .head_dim = 256,
     .bos = 2,
     .example = R"({"sliding_window": 96, "query_pre_attn_scalar": 16})",
     .describe = DescribeGemma2},
    {.family = &kGemma2,
     .name = "gemma3_text",
     .architecture = "Gemma3ForCausalLM",
     .note = "four norms and those of heads, five of six layers slide",
     .max_positions = 131072,
     .sliding = SlidingRule::kPeriod,
     .sliding_window = 4096,
     .sliding_period = 6,
     .local_rope = true,
     .rope_theta = 1000000.0,
     .biases = BiasRule::kConfig,
     .norms = kInputNorms | kOutputNorms | kHeadNorms,
     .tied_head = true,
     .head_dim = 256,
     .bos = 2,
     .example = R"({"sliding_window": 96, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16})",
     .describe = DescribeGemma3},
};

constexpr TensorNames kNames2 = {
    .embedding = "model.embed_tokens",
    .head = "lm_head",
    .final_norm = "model.norm",
    .layers = "model.layers.",
    .norms = {"input_layernorm", "pre_feedforward_layernorm", "post_attention_layernorm",
              "post_feedforward_layernorm", "self_attn.q_norm", "self_attn.k_norm"},
    .linears = kUsualLinears};

}  // namespace

constexpr Family kGemma1 = {.types = kTypes1,
                            .keys = kKeys,
                            .names = kUsualNames,
                            .activation = kActivation,
                            .norm_offset = kNormOffset};
constexpr Family kGemma2 = {.types = kTypes2,
                            .keys = kKeys,
                            .names = kNames2,
                            .activation = kActivation,
                            .norm_offset = kNormOffset};

}  // namespace mica
