#include "model/towers.h"

#include "tests/error_message.h"

namespace mica {
namespace {

TEST(Towers, ConfigurationsWithThemAreRefusedByName) {
  RefuseTowers(Json{{"model_type", "llama"}, {"vision_config", nullptr}}, "config.json");
  RefuseTowers(Json::array(), "config.json");
  for (const char* key : {"vision_config", "audio_config", "text_config"}) {
    ExpectError(
        [&] {
          RefuseTowers(Json{{key, {{"hidden_size", 4}}}}, "m/config.json");
        },
        {"m/config.json: has ", key, "give a checkpoint of the language model alone"});
  }
}

TEST(Towers, TensorsOfThemAreKnownByTheirModules) {
  for (const char* name :
       {"vision_tower.encoder.0.weight", "model.vision_tower.x", "visual.blocks.0.attn.qkv.weight",
        "model.visual.merger.mlp.0.bias", "audio_tower.conv1.weight", "multi_modal_projector.linear_1.weight",
        "model.embed_vision.proj.weight"})
    EXPECT_TRUE(IsOfTower(name)) << name;
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.weight", "model.visualise.weight", "visual", "lm_head.weight"})
    EXPECT_FALSE(IsOfTower(name)) << name;
}

}  // namespace
}  // namespace mica
