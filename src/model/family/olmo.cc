// OLMo 2 and 3: norms of what attention and MLP add to the residual stream in place of what enters them, and
// of all queries and keys of a token together.
#include "model/config.h"
#include "model/family/family.h"

namespace mica {

extern const Family kOlmo;

namespace {

void DescribeOlmo(const ConfigReader&, ModelConfig& config) { config.wide_head_norms = true; }

constexpr ModelType kTypes[] = {
    {.family = &kOlmo,
     .name = "olmo2",
     .architecture = "Olmo2ForCausalLM",
     .note = "norms behind attention and MLP",
     .max_positions = 2048,
     .biases = BiasRule::kConfig,
     .norms = kOutputNorms | kHeadNorms,
     .describe = DescribeOlmo},
    {.family = &kOlmo,
     .name = "olmo3",
     .architecture = "Olmo3ForCausalLM",
     .note = "the same, and three of four layers slide",
     .max_positions = 2048,
     .sliding = SlidingRule::kPeriod,
     .sliding_window = 4096,
     .sliding_period = 4,
     .local_rope = true,
     .biases = BiasRule::kConfig,
     .norms = kOutputNorms | kHeadNorms,
     .example = R"({"sliding_window": 96})",
     .describe = DescribeOlmo},
};

constexpr TensorNames kNames = {
    .embedding = "model.embed_tokens",
    .head = "lm_head",
    .final_norm = "model.norm",
    .layers = "model.layers.",
    .norms = {nullptr, nullptr, "post_attention_layernorm", "post_feedforward_layernorm", "self_attn.q_norm",
              "self_attn.k_norm"},
    .linears = kUsualLinears};

}  // namespace

constexpr Family kOlmo = {.types = kTypes, .keys = kUsualKeys, .names = kNames};

}  // namespace mica
