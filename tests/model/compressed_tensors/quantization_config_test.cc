#include "model/compressed_tensors/quantization_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "tests/error_message.h"

namespace mica {
namespace {

using ::testing::HasSubstr;

Json WeightsJson(int bits) {
  return {
      {"num_bits", bits}, {"type", "int"}, {"symmetric", true}, {"strategy", "group"}, {"group_size", 128}};
}

Json GroupJson(int bits, const Json& targets) {
  return {{"targets", targets}, {"weights", WeightsJson(bits)}, {"input_activations", nullptr}};
}

Json ConfigJson() {
  Json json = {{"quant_method", "compressed-tensors"},
               {"format", "pack-quantized"},
               {"quantization_status", "compressed"},
               {"ignore", {"lm_head", "re:.*layers\\.7\\..*"}}};
  json["config_groups"]["group_0"] = GroupJson(4, {"Linear"});
  json["config_groups"]["group_1"] = GroupJson(8, {"re:.*down_proj$"});
  json["config_groups"]["group_2"] = GroupJson(6, Json::array({"model.layers.3.mlp.down_proj"}));
  return json;
}

int BitsOf(const CompressedTensorsConfig& config, const char* module, const char* class_name = "Linear") {
  const IntegerScheme* scheme = config.SchemeOf(module, class_name);
  return scheme == nullptr ? 0 : scheme->bits;
}

TEST(CompressedTensorsConfig, NamesComeBeforePatternsBeforeClasses) {
  const CompressedTensorsConfig config = CompressedTensorsConfig::Parse(ConfigJson(), "here");
  EXPECT_EQ(BitsOf(config, "model.layers.0.mlp.up_proj"), 4);
  EXPECT_EQ(BitsOf(config, "model.layers.0.mlp.down_proj"), 8);
  EXPECT_EQ(BitsOf(config, "model.layers.3.mlp.down_proj"), 6);
  EXPECT_EQ(BitsOf(config, "model.layers.7.mlp.down_proj"), 0);
  EXPECT_TRUE(config.Ignores("model.layers.7.mlp.down_proj", "Linear"));
  EXPECT_EQ(BitsOf(config, "lm_head"), 0);
  EXPECT_EQ(BitsOf(config, "model.embed_tokens", "Embedding"), 0);
  EXPECT_FALSE(config.Ignores("model.embed_tokens", "Embedding"));
}

TEST(CompressedTensorsConfig, AChannelHasOneScale) {
  Json json = ConfigJson();
  for (const Json& size : {Json(nullptr), Json(-1)}) {
    json["config_groups"]["group_0"]["weights"]["strategy"] = "channel";
    json["config_groups"]["group_0"]["weights"]["group_size"] = size;
    EXPECT_EQ(CompressedTensorsConfig::Parse(json, "here").SchemeOf("a", "Linear")->group, std::nullopt);
  }
  json["config_groups"]["group_0"]["weights"].erase("strategy");  // -1 alone says the same
  EXPECT_EQ(CompressedTensorsConfig::Parse(json, "here").SchemeOf("a", "Linear")->group, std::nullopt);
}

TEST(CompressedTensorsConfig, WhatIsNotSupportedIsNamed) {
  const auto refused = [](const char* expected, const std::function<void(Json&)>& change) {
    Json json = ConfigJson();
    change(json);
    EXPECT_THAT(MessageOf([&] { CompressedTensorsConfig::Parse(json, "here"); }), HasSubstr(expected));
  };
  for (const char* format : {"marlin-24", "sparse-24-bitmask", "int-quantized", "nvfp4-pack-quantized"})
    refused(format, [&](Json& json) { json["format"] = format; });
  refused("\"surprise\" is not a key", [](Json& json) { json["surprise"] = 1; });
  refused("kv_cache_scheme", [](Json& json) { json["kv_cache_scheme"] = {{"num_bits", 8}}; });
  refused("sparsity_config", [](Json& json) { json["sparsity_config"] = {{"format", "sparse-bitmask"}}; });
  refused("transform_config", [](Json& json) { json["transform_config"] = {{"config_groups", 1}}; });
  refused("quantization_status", [](Json& json) { json["quantization_status"] = "initialized"; });
  refused("config_groups is absent", [](Json& json) { json.erase("config_groups"); });
  refused("not a regular expression", [](Json& json) { json["ignore"] = {"re:(", "b"}; });
  refused("ignore is", [](Json& json) { json["ignore"] = "lm_head"; });
  const auto of_group = [&](const char* expected, const char* key, const Json& value) {
    refused(expected, [&](Json& json) { json["config_groups"]["group_1"][key] = value; });
  };
  of_group("here: config_groups.group_1: \"bits\" is not a key", "bits", 4);
  of_group("activations that are quantised", "input_activations", {{"num_bits", 8}});
  of_group("targets is", "targets", nullptr);
  of_group("format is \"int-quantized\"", "format", "int-quantized");
  const auto of_weights = [&](const char* expected, const char* key, const Json& value) {
    refused(expected, [&](Json& json) { json["config_groups"]["group_1"]["weights"][key] = value; });
  };
  of_weights("num_bits is 9", "num_bits", 9);
  of_weights("num_bits is 4.5", "num_bits", 4.5);
  of_weights("type is \"float\"", "type", "float");
  of_weights("strategy is \"tensor\"", "strategy", "tensor");
  of_weights("strategy is \"channel\" with group_size 128", "strategy", "channel");
  of_weights("group_size is 0", "group_size", 0);
  of_weights("dynamic is true", "dynamic", true);
  of_weights("actorder is \"sideways\"", "actorder", "sideways");
  of_weights("\"zero\" is not a key", "zero", 1);
}

TEST(CompressedTensorsConfig, WhatChangesNothingIsTaken) {
  Json json = ConfigJson();
  json["global_compression_ratio"] = 1.5;
  json["kv_cache_scheme"] = nullptr;
  json["sparsity_config"] = Json::object();
  json["transform_config"] = Json::object();
  json["version"] = "0.12.2";
  json["quantization_status"] = "frozen";
  Json& weights = json["config_groups"]["group_0"]["weights"];
  weights["actorder"] = "weight";
  weights["observer"] = "minmax";
  weights["observer_kwargs"] = Json::object();
  weights["scale_dtype"] = nullptr;
  weights["zp_dtype"] = "torch.int8";
  EXPECT_EQ(MessageOf([&] { CompressedTensorsConfig::Parse(json, "here"); }), "");
}

}  // namespace
}  // namespace mica
