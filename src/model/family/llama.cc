// LLaMA (also Vicuna and Yi), Mistral, Ministral.
#include "model/config.h"
#include "model/config_reader.h"
#include "model/family/family.h"

namespace mica {

extern const Family kLlama;

namespace {

// Queries of far positions grow (transformers: get_llama_4_attn_scale).
void DescribeMinistral3(const ConfigReader& reader, ModelConfig& config) {
  const Json* rope = reader.Find("rope_parameters");
  if (rope == nullptr) return;
  const ConfigReader inner(*rope, reader.where() + ": rope_parameters");
  config.query_slope = inner.NotNegative("llama_4_scaling_beta", 0.0);
  if (config.query_slope != 0.0)
    config.query_positions = inner.Positive("original_max_position_embeddings", 1e9);
}

constexpr ModelType kTypes[] = {
    {.family = &kLlama,
     .name = "llama",
     .architecture = "LlamaForCausalLM",
     .also = "also Vicuna and Yi",
     .max_positions = 2048,
     .biases = BiasRule::kConfig,
     .bos = 1},
    {.family = &kLlama,
     .name = "mistral",
     .architecture = "MistralForCausalLM",
     .max_positions = 131072,
     .sliding = SlidingRule::kAll,
     .sliding_window = 4096,
     .bos = 1,
     .example = R"({"sliding_window": null})"},
    {.family = &kLlama,
     .name = "ministral",
     .architecture = "MinistralForCausalLM",
     .max_positions = 131072,
     .sliding = SlidingRule::kAll,
     .sliding_window = 4096,
     .bos = 1,
     .example = R"({"sliding_window": 96})"},
    {.family = &kLlama,
     .name = "ministral3",
     .architecture = "Ministral3ForCausalLM",
     .note = "yarn, queries that grow with their position",
     .max_positions = 262144,
     .sliding = SlidingRule::kAll,
     .sliding_window = 0,
     .rope_theta = 1000000.0,
     .head_dim = 128,
     .bos = 1,
     .example = R"({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1000000.0, "factor": 16.0,
         "original_max_position_embeddings": 128, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
         "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}})",
     .describe = DescribeMinistral3},
};

}  // namespace

constexpr Family kLlama = {.types = kTypes, .keys = kUsualKeys, .names = kUsualNames};

}  // namespace mica
