// config.json: what each model family means by it, and what is refused, by name.
#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "model/rope.h"
#include "ops/rope/rope.h"
#include "tests/error_message.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

using testing::HasSubstr;

std::string Refusal(const Json& json) {
  return MessageOf([&] { ParseConfig(json, "config.json"); });
}

std::string RefusalWith(const char* key, const Json& value) {
  Json json = TinyConfig();
  json[key] = value;
  return Refusal(json);
}

TEST(Config, ReadsEveryField) {
  const ModelConfig config = ParseConfig(TinyConfig(), "config.json");
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.layers, 2u);
  EXPECT_EQ(config.hidden, 24u);
  EXPECT_EQ(config.heads, 4u);
  EXPECT_EQ(config.kv_heads, 2u);
  EXPECT_EQ(config.head_dim, 6u);
  EXPECT_EQ(config.ffn, 40u);
  EXPECT_EQ(config.vocab, 50u);
  EXPECT_EQ(config.max_positions, 256u);
  EXPECT_FLOAT_EQ(config.norm_epsilon, 1e-5f);
  EXPECT_FALSE(config.tied_head);
  EXPECT_FALSE(config.attention_bias);
  EXPECT_EQ(config.ShortestSliding(), 0u);
}

TEST(Config, FillsInWhatTransformersAssumes) {
  Json json = TinyConfig();
  for (const char* key : {"num_key_value_heads", "rope_theta", "rms_norm_eps", "max_position_embeddings",
                          "hidden_act", "tie_word_embeddings", "architectures"}) {
    json.erase(key);
  }
  json["head_dim"] = nullptr;
  json["rope_scaling"] = nullptr;
  json["quantization_config"] = nullptr;
  const ModelConfig config = ParseConfig(json, "config.json");
  EXPECT_EQ(config.kv_heads, 4u);
  EXPECT_EQ(config.head_dim, 6u);
  EXPECT_EQ(config.ropes.front().theta, 10000.0);
  EXPECT_FLOAT_EQ(config.norm_epsilon, 1e-6f);
  EXPECT_EQ(config.max_positions, 2048u);
  EXPECT_FALSE(config.tied_head);
  EXPECT_EQ(config.bos, 1);
}

TEST(Config, HeadDimMayDifferFromHiddenOverHeads) {
  Json json = TinyConfig();
  json["head_dim"] = 32;
  json["num_attention_heads"] = 5;
  json["num_key_value_heads"] = 1;
  const ModelConfig config = ParseConfig(json, "config.json");
  EXPECT_EQ(config.head_dim, 32u);
  EXPECT_EQ(config.q_width(), 160u);
  EXPECT_EQ(config.kv_width(), 32u);
}

TEST(Config, BiasesFollowTheFamily) {
  Json json = TinyConfig();
  json["attention_bias"] = true;
  json["mlp_bias"] = true;
  ModelConfig config = ParseConfig(json, "config.json");
  EXPECT_TRUE(config.attention_bias && config.output_bias && config.mlp_bias);

  json = TinyConfig();
  json["model_type"] = "qwen2";
  json["architectures"] = {"Qwen2ForCausalLM"};
  config = ParseConfig(json, "config.json");
  EXPECT_TRUE(config.attention_bias);
  EXPECT_FALSE(config.output_bias || config.mlp_bias);
}

TEST(Config, SlidingWindows) {
  Json json = TinyConfig();
  json["model_type"] = "mistral";
  json["architectures"] = {"MistralForCausalLM"};
  EXPECT_EQ(ParseConfig(json, "config.json").ShortestSliding(), 4096u);  // MistralConfig's default
  json["sliding_window"] = nullptr;
  EXPECT_EQ(ParseConfig(json, "config.json").ShortestSliding(), 0u);
  json["sliding_window"] = 128;
  const ModelConfig config = ParseConfig(json, "config.json");
  EXPECT_EQ(config.ShortestSliding(), 128u);

  json["model_type"] = "qwen2";
  json["architectures"] = {"Qwen2ForCausalLM"};
  EXPECT_EQ(ParseConfig(json, "config.json").ShortestSliding(), 0u);  // use_sliding_window is false unless given
  json["use_sliding_window"] = true;
  EXPECT_EQ(ParseConfig(json, "config.json").ShortestSliding(), 0u);  // from layer 28 on unless given
  json["max_window_layers"] = 1;
  const ModelConfig last = ParseConfig(json, "config.json");
  EXPECT_EQ(last.traits[0].sliding, 0u);
  EXPECT_EQ(last.traits[1].sliding, 128u);
}

TEST(Config, RefusesAbsurdNumbersByKey) {
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "vocab_size", "max_position_embeddings", "head_dim"}) {
    for (const Json& value : {Json(0), Json(-1), Json(2.5), Json("24"), Json(true), Json(uint64_t{1} << 63),
                              Json(Json::array({24}))}) {
      EXPECT_THAT(RefusalWith(key, value), HasSubstr(std::string(key) + " is " + value.dump())) << value;
    }
  }
  for (const char* key :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
    Json json = TinyConfig();
    json.erase(key);
    EXPECT_THAT(Refusal(json), HasSubstr(std::string(key) + " is missing"));
  }
  for (const char* key : {"rope_theta", "rms_norm_eps"}) {
    for (const Json& value : {Json(0), Json(-1.0), Json("x"), Json(1e300)})
      EXPECT_THAT(RefusalWith(key, value), HasSubstr(key));
  }
  EXPECT_THAT(RefusalWith("num_key_value_heads", 3), HasSubstr("divisor of num_attention_heads, 4"));
  EXPECT_THAT(RefusalWith("num_key_value_heads", 8), HasSubstr("divisor of num_attention_heads, 4"));
  EXPECT_THAT(RefusalWith("hidden_size", 26), HasSubstr("divisor of hidden_size, 26"));
  EXPECT_THAT(RefusalWith("head_dim", 7), HasSubstr("head_dim is 7"));
  EXPECT_THAT(RefusalWith("bos_token_id", 50), HasSubstr("bos_token_id is 50"));
  EXPECT_THAT(RefusalWith("tie_word_embeddings", "yes"), HasSubstr("expected true or false"));
}

TEST(Config, RefusesUnsupportedByName) {
  EXPECT_THAT(RefusalWith("model_type", "mamba"),
              HasSubstr("model_type is \"mamba\", which is not supported"));
  EXPECT_THAT(RefusalWith("num_local_experts", 8), HasSubstr("mixture of experts (num_local_experts is 8)"));
  EXPECT_THAT(RefusalWith("model_type", nullptr), HasSubstr("model_type is missing"));
  EXPECT_THAT(RefusalWith("hidden_act", "gelu"), HasSubstr("hidden_act is \"gelu\""));
  EXPECT_THAT(RefusalWith("architectures", Json::array({"LlamaForSequenceClassification"})),
              HasSubstr("LlamaForCausalLM"));
  EXPECT_THAT(RefusalWith("partial_rotary_factor", 0.5), HasSubstr("partial_rotary_factor is 0.5"));
  EXPECT_THAT(RefusalWith("rope_scaling", Json{{"type", "mrope"}, {"factor", 4.0}}),
              HasSubstr("type \"mrope\", which is not supported"));
  EXPECT_THAT(RefusalWith("rope_scaling", Json{{"type", "yarn"}, {"factor", 4.0}, {"beta_fast", 0.5}}),
              HasSubstr("beta_fast is 0.5, expected more than beta_slow"));
  EXPECT_THAT(RefusalWith("rope_scaling", Json{{"rope_type", "dynamic"}}), HasSubstr("factor is missing"));
  EXPECT_THAT(RefusalWith("rope_scaling", Json{{"rope_type", "longrope"}, {"short_factor", {1.0, 1.0}}}),
              HasSubstr("short_factor is [1.0,1.0], expected"));
  EXPECT_THAT(RefusalWith("rope_scaling", Json{{"type", "linear"}}), HasSubstr("factor is missing"));
  EXPECT_THAT(RefusalWith("rope_scaling", 4), HasSubstr("rope_scaling is 4"));
  EXPECT_THAT(RefusalWith("rope_scaling", Json{{"factor", 4.0}}),
              HasSubstr("rope_scaling: factor is 4.0, but there is no rope_type"));
  EXPECT_EQ(RefusalWith("rope_scaling", Json::object()), "");
  EXPECT_EQ(RefusalWith("rope_scaling", Json{{"type", "default"}, {"factor", 4.0}}), "");
  EXPECT_EQ(RefusalWith("rope_parameters", Json{{"rope_theta", 10000.0}, {"partial_rotary_factor", 1.0}}),
            "");
  EXPECT_THAT(RefusalWith("rope_parameters", Json{{"rope_theta", 10000.0}, {"partial_rotary_factor", 0.5}}),
              HasSubstr("rope_parameters: partial_rotary_factor is 0.5"));
  EXPECT_THAT(RefusalWith("rope_parameters", Json{{"rope_theta", 10000.0}, {"low_freq_factor", 1.0}}),
              HasSubstr("no rope_type"));
  EXPECT_THAT(RefusalWith("rope_parameters", Json{{"full_attention", {{"rope_theta", 1e6}}}}),
              HasSubstr("one rotary embedding for all layers"));
  EXPECT_EQ(RefusalWith("layer_types", Json::array({"full_attention", "sliding_attention"})), "");
  EXPECT_THAT(RefusalWith("layer_types", Json::array({"chunked_attention", "full_attention"})),
              HasSubstr("supported are"));
  EXPECT_THAT(RefusalWith("layer_types", Json::array({"full_attention"})), HasSubstr("2 layer types"));
  EXPECT_THAT(RefusalWith("quantization_config", Json{{"quant_method", "gptq"}, {"bits", 4}}),
              HasSubstr("quant_method \"gptq\""));
  EXPECT_EQ(RefusalWith("architectures", Json::array({"LLaMAForCausalLM"})), "");
  EXPECT_THAT(Refusal(Json::array()), HasSubstr("expected a JSON object"));
  EXPECT_EQ(RefusalWith("quantization_config", Json{{"quant_method", "mica"}, {"version", 1}}), "");
}

// A configuration as a public repository holds it, with keys that say nothing here among the others.
Json Published(const std::string& type, const std::string& architecture, const Json& more = Json::object()) {
  Json json = Json::parse(
      R"({"_name_or_path": "some/where", "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": [2, 3],
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "pad_token_id": null,
    "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05, "torch_dtype": "float16", "transformers_version": "4.38.2", "use_cache": true, "vocab_size": 32000})");
  json["model_type"] = type;
  json["architectures"] = {architecture};
  json.update(more);
  return json;
}

TEST(Config, ConfigurationsOfEveryKindAreReadOrRefusedForTheirReason) {
  const auto llama = [](const Json& more) { return Published("llama", "LlamaForCausalLM", more); };
  const auto rope = [&](const Json& scaling) { return llama({{"rope_scaling", scaling}}); };
  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 32.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  const Json sliding = {{"sliding_window", 4096}};
  const Json qwen2 = {{"use_sliding_window", false}, {"sliding_window", 131072}, {"max_window_layers", 28},
                      {"bos_token_id", 151643},      {"vocab_size", 152064},     {"num_key_value_heads", 4}};
  const Json yarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  const Json longrope = {{"type", "longrope"}, {"short_factor", {1.0}}, {"long_factor", {1.0}}};
  const struct {
    const char* kind;
    Json json;
    const char* refusal;  // part of it; "" where it is read
  } cases[] = {
      {"the first conversions", Published("llama", "LLaMAForCausalLM"), ""},
      {"no model's own class", llama({{"auto_map", {{"AutoConfig", "configuration.Config"}}}}), ""},
      {"several kv heads", llama({{"num_key_value_heads", 8}, {"rope_theta", 5e6}, {"vocab_size", 64000}}),
       ""},
      {"tied, narrow heads", llama({{"tie_word_embeddings", true}, {"head_dim", 64}}), ""},
      {"null for what is absent", llama({{"rope_scaling", nullptr}, {"sliding_window", nullptr}}), ""},
      {"rope llama3", rope(llama3), ""},
      {"rope linear", rope({{"type", "linear"}, {"factor", 4.0}}), ""},
      {"rope dynamic", rope({{"type", "dynamic"}, {"factor", 2.0}}), ""},
      {"rope yarn", rope(yarn), ""},
      {"rope longrope", rope(longrope), "short_factor is [1.0], expected 64 numbers"},
      {"rope of which half turns", llama({{"partial_rotary_factor", 0.5}}), "partial_rotary_factor is 0.5"},
      {"mistral, sliding", Published("mistral", "MistralForCausalLM", sliding), ""},
      {"mistral, whole", Published("mistral", "MistralForCausalLM", {{"sliding_window", nullptr}}), ""},
      {"qwen2", Published("qwen2", "Qwen2ForCausalLM", qwen2), ""},
      {"experts", Published("mixtral", "MixtralForCausalLM", {{"num_local_experts", 8}}),
       "mixture of experts (num_local_experts is 8)"},
      {"fused projections", Published("phi3", "Phi3ForCausalLM"), ""},
      {"other words", Json{{"model_type", "gpt2"}, {"n_embd", 768}, {"n_layer", 12}},
       "model_type is \"gpt2\""},
      {"no words at all", Json{{"transformers_version", "4.38.2"}}, "model_type is missing"},
      {"a head of classes", Published("llama", "LlamaForSequenceClassification"), "architectures is"},
      {"images", Json{{"model_type", "llava"}, {"text_config", llama(Json::object())}},
       "model_type is \"llava\""},
      {"of another quantiser", llama({{"quantization_config", {{"quant_method", "awq"}, {"bits", 4}}}}),
       "quant_method \"awq\""},
      {"of another gate", llama({{"hidden_act", "gelu_pytorch_tanh"}}), ""},
      {"of no gate that is known", llama({{"hidden_act", "relu2"}}), "hidden_act is \"relu2\""},
  };
  for (const auto& [kind, json, refusal] : cases) {
    if (*refusal == '\0') {
      EXPECT_EQ(Refusal(json), "") << kind;
    } else {
      ExpectError([&, &config = json] { ParseConfig(config, "some/config.json"); },
                  {"some/config.json: ", refusal});
    }
  }
}

// All configurations below the directory that MICA_CONFIGS names, one a folder: each is read, and then names
// the tensors that the index beside it lists, or is refused for a reason, in one line.
TEST(Config, ReadsOrRefusesACollectionOfConfigurations) {
  const char* const directory = std::getenv("MICA_CONFIGS");
  if (directory == nullptr || !std::filesystem::is_directory(directory))
    GTEST_SKIP() << "MICA_CONFIGS names no directory of configurations";
  size_t found = 0, read = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (entry.path().filename() != "config.json") continue;
    SCOPED_TRACE(entry.path().string());
    ++found;
    const std::filesystem::path folder = entry.path().parent_path();
    ModelConfig config;
    const std::string refusal = MessageOf([&] { config = LoadConfig(folder); });
    if (!refusal.empty()) {
      std::printf("%s\n", refusal.c_str());
      EXPECT_TRUE(refusal.starts_with(entry.path().string() + ": "));
      EXPECT_EQ(refusal.find('\n'), std::string::npos);
      continue;
    }
    ++read;
    EXPECT_GT(ParameterCount(config), 0u);
    EXPECT_EQ(RopeFrequencies(config.ropes.front(), 16).size(), config.head_dim / 2);
    for (const char* name : {"model.safetensors.index.json", "pytorch_model.bin.index.json"}) {
      if (!std::filesystem::exists(folder / name)) continue;
      Json index;
      const std::string unread = MessageOf([&] { index = ReadJson(folder / name); });  // not fetched
      EXPECT_EQ(unread.find('\n'), std::string::npos) << unread;
      if (!unread.empty()) continue;
      for (const auto& item : index["weight_map"].items()) {
        const TensorPlace place = PlaceOf(*config.family, item.key());
        if (item.key().ends_with(".rotary_emb.inv_freq")) continue;  // follows from the configuration
        EXPECT_NE(place.role, TensorRole::kOther) << item.key();
        EXPECT_LT(place.layer.value_or(0), config.layers) << item.key();
      }
    }
  }
  std::printf("%zu configurations, %zu of them read\n", found, read);
  EXPECT_GT(found, 0u);
}

TEST(Config, CountsParameters) {
  // embedding and head 2 x 50 x 24, final norm 24; a layer: q 24 x 24, k and v 12 x 24, o 24 x 24, three of
  // 24 x 40, two norms.
  const uint64_t layer = 24 * 24 + 2 * 12 * 24 + 24 * 24 + 3 * 24 * 40 + 2 * 24;
  EXPECT_EQ(ParameterCount(ParseConfig(TinyConfig(), "config.json")), 2 * 50 * 24 + 24 + 2 * layer);
  for (const auto& [tied, type] : {std::pair{true, "llama"}, {false, "qwen2"}}) {
    Json json = TinyConfig();
    json.erase("architectures");
    json["tie_word_embeddings"] = tied;
    json["model_type"] = type;
    const ModelConfig config = ParseConfig(json, "config.json");
    uint64_t sum = 0;
    for (const auto& [name, tensor] : RandomTensors(config, 1)) sum += tensor.second.size();
    EXPECT_EQ(ParameterCount(config), sum) << type;
  }
}

TEST(Rope, LinearAndLlama3ByHand) {
  Json json = TinyConfig();
  json["head_dim"] = 8;
  json["rope_theta"] = 10000.0;
  ModelConfig config = ParseConfig(json, "config.json");
  EXPECT_THAT(RopeFrequencies(config.ropes.front(), 16),
              testing::Pointwise(testing::DoubleNear(1e-12), {1.0, 0.1, 0.01, 0.001}));

  json["rope_scaling"] = {{"type", "linear"}, {"factor", 4.0}};
  EXPECT_THAT(RopeFrequencies(ParseConfig(json, "config.json").ropes.front(), 16),
              testing::Pointwise(testing::DoubleNear(1e-12), {0.25, 0.025, 0.0025, 0.00025}));

  // Original context 1000 pi: turns in it are 500, 50, 5, 0.5. With low 1, high 9: the first two stay, 0.5 is
  // divided by 8, and 5 is halfway: 0.01 (1/2 + 1/2 / 8) = 0.005625.
  json["rope_scaling"] = {{"rope_type", "llama3"},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 9.0},
                          {"original_max_position_embeddings", 1000 * 3.14159265358979323846}};
  EXPECT_THAT(RopeFrequencies(ParseConfig(json, "config.json").ropes.front(), 16),
              testing::Pointwise(testing::DoubleNear(1e-9), {1.0, 0.1, 0.005625, 0.000125}));

  // The newer spelling.
  json.erase("rope_scaling");
  json["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 10000.0}};
  EXPECT_NEAR(RopeFrequencies(ParseConfig(json, "config.json").ropes.front(), 16)[1], 0.05, 1e-12);

  // Both spellings side by side say the same, or which one is true is not known.
  json["rope_scaling"] = json["rope_parameters"];
  EXPECT_NEAR(RopeFrequencies(ParseConfig(json, "config.json").ropes.front(), 16)[1], 0.05, 1e-12);
  json["rope_scaling"]["factor"] = 4.0;
  EXPECT_THAT(Refusal(json), HasSubstr("not what rope_parameters says"));
}

TEST(Rope, TableHoldsCosinesAndSines) {
  Json json = TinyConfig();
  json["head_dim"] = 8;
  RopeTable table(RopeFrequencies(ParseConfig(json, "config.json").ropes.front(), 16));
  table.Extend(3);
  table.Extend(101);
  EXPECT_EQ(table.cosines(0)[3], 1.0f);
  EXPECT_EQ(table.sines(0)[3], 0.0f);
  EXPECT_NEAR(table.cosines(100)[1], std::cos(10.0), 1e-7);
  EXPECT_NEAR(table.sines(100)[2], std::sin(1.0), 1e-7);
}

}  // namespace
}  // namespace mica
