// Names of tensors, orders of rows and factors of the rotary embedding, each both ways.
#include <cmath>
#include <cstring>

#include "model/gguf/architecture.h"
#include "model/gguf/names.h"
#include "model/gguf/rope.h"
#include "model/gguf/rows.h"
#include "model/rope.h"
#include "tests/error_message.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

TEST(GgufNames, BothWays) {
  const GgufArchitecture& llama = *FindGgufArchitecture("llama");
  const TensorNames& of_family = FindModelType("llama")->family->names;
  const std::pair<const char*, const char*> names[] = {
      {"token_embd.weight", "model.embed_tokens.weight"},
      {"output.weight", "lm_head.weight"},
      {"output_norm.weight", "model.norm.weight"},
      {"blk.0.attn_norm.weight", "model.layers.0.input_layernorm.weight"},
      {"blk.11.ffn_norm.weight", "model.layers.11.post_attention_layernorm.weight"},
      {"blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight"},
      {"blk.3.attn_k.bias", "model.layers.3.self_attn.k_proj.bias"},
      {"blk.3.attn_v.weight", "model.layers.3.self_attn.v_proj.weight"},
      {"blk.3.attn_output.weight", "model.layers.3.self_attn.o_proj.weight"},
      {"blk.3.ffn_gate.weight", "model.layers.3.mlp.gate_proj.weight"},
      {"blk.3.ffn_up.weight", "model.layers.3.mlp.up_proj.weight"},
      {"blk.3.ffn_down.weight", "model.layers.3.mlp.down_proj.weight"},
  };
  for (const auto& [stored, name] : names) {
    const auto tensor = ModuleTensorOf(llama.names, stored);
    ASSERT_TRUE(tensor) << stored;
    EXPECT_EQ(TensorNameOf(of_family, *tensor), name);
    const auto back = ModuleTensorOf(of_family, name);
    ASSERT_TRUE(back) << name;
    EXPECT_EQ(TensorNameOf(llama.names, *back), stored);
  }
  for (const char* other :
       {"rope_freqs.weight", "blk.0.attn_q", "blk.x.attn_q.weight",
        "attn_q.weight", "blk.0.attn_q.scale", "", "weight", ".weight", "output.weights"})
    EXPECT_FALSE(ModuleTensorOf(llama.names, other)) << other;
}

TEST(GgufRows, NeighboursOfEachHead) {
  Json json = TinyConfig();  // 4 heads of 6, 2 of k
  const ModelConfig config = ParseConfig(json, "test");
  const GgufArchitecture& llama = *FindGgufArchitecture("llama");
  const std::vector<uint32_t> k = GgufRowOrder(llama, config, LinearKind::kK);
  EXPECT_EQ(k, (std::vector<uint32_t>{0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11}));
  EXPECT_EQ(GgufRowOrder(llama, config, LinearKind::kQ).size(), 24u);
  EXPECT_TRUE(GgufRowOrder(llama, config, LinearKind::kV).empty());
  EXPECT_TRUE(GgufRowOrder(*FindGgufArchitecture("qwen2"), config, LinearKind::kQ).empty());

  // The file has channels 0 and 3, 1 and 4, 2 and 5 of a head beside each other.
  const std::string rows = "a0a1a2a3a4a5b0b1b2b3b4b5";
  std::string stored(rows.size(), ' ');
  ArrangeRows(std::as_bytes(std::span(rows)), k, std::as_writable_bytes(std::span(stored)));
  EXPECT_EQ(stored, "a0a3a1a4a2a5b0b3b1b4b2b5");
  ArrangeRows(std::as_bytes(std::span(rows)), {}, std::as_writable_bytes(std::span(stored)));
  EXPECT_EQ(stored, rows);
}

ModelConfig WithLlama3(double factor, double high, double original) {
  Json json = TinyConfig();
  json["head_dim"] = 64;
  json["rope_theta"] = 500000.0;
  json["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", factor},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", high},
                          {"original_max_position_embeddings", original}};
  return ParseConfig(json, "test");
}

TEST(GgufRope, FactorsSayWhichScalingItIs) {
  for (const auto& [factor, high, original] :
       {std::tuple{8.0, 4.0, 8192.0}, {32.0, 4.0, 8192.0}, {4.0, 4.0, 4096.0}, {8.0, 16.0, 8192.0}}) {
    const ModelConfig config = WithLlama3(factor, high, original);
    const std::vector<float> factors = RopeFactors(config);
    ASSERT_EQ(factors.size(), 32u);
    EXPECT_EQ(factors.front(), 1.0f);
    EXPECT_EQ(factors.back(), static_cast<float>(factor));
    ModelConfig found = config;
    found.ropes.front().scaling = RopeScaling::kNone;
    ASSERT_TRUE(FindRopeScaling(factors, std::nullopt, &found));
    EXPECT_EQ(RopeFrequencies(found.ropes.front(), 0), RopeFrequencies(config.ropes.front(), 0));
    EXPECT_EQ(found.ropes.front().original_positions, original);
  }
  EXPECT_TRUE(RopeFactors(ParseConfig(TinyConfig(), "test")).empty());
  const ModelConfig odd = WithLlama3(8.0, 4.0, 5000.0);
  ModelConfig found = odd;
  EXPECT_FALSE(FindRopeScaling(RopeFactors(odd), std::nullopt, &found));
  EXPECT_TRUE(FindRopeScaling(RopeFactors(odd), 5000.0, &found));
}

TEST(GgufArchitectures, KnownByNameAndByModel) {
  EXPECT_EQ(FindGgufArchitecture("mamba"), nullptr);
  EXPECT_EQ(GgufArchitectureNames(),
            "llama, mistral3, qwen2, qwen3, smollm3, granite, phi3, olmo2, gemma, gemma2 and gemma3");
  ModelConfig config = ParseConfig(TinyConfig(), "test");
  EXPECT_STREQ(GgufArchitectureOf(config).name, "llama");
  config.model_type = "mistral";
  EXPECT_STREQ(GgufArchitectureOf(config).name, "llama");
  config.model_type = "other";
  ExpectError([&] { GgufArchitectureOf(config); }, {"\"other\"", "supported are llama, mistral3"});
}

}  // namespace
}  // namespace mica
