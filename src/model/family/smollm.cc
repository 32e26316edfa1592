// SmolLM3. SmolLM 1 and 2 are of type llama.
#include "model/config.h"
#include "model/config_reader.h"
#include "model/family/family.h"

namespace mica {

extern const Family kSmolLm;

namespace {

constexpr uint64_t kMostTokens = uint64_t{1} << 30;

// Each no_rope_layer_interval-th layer does not turn; no_rope_layers, where it is given, has a 1 for each layer
// that does. Where layer_types does not say it, a sliding window is that of the layers that do not.
void DescribeSmolLm3(const ConfigReader& reader, ModelConfig& config) {
  const size_t interval = reader.Count("no_rope_layer_interval", 4096, 4);
  const std::vector<size_t> turns = reader.Counts("no_rope_layers", config.layers, 1);
  const bool slides = reader.Flag("use_sliding_window", false) && reader.Find("layer_types") == nullptr;
  const size_t window = slides ? reader.Count("sliding_window", kMostTokens, 0) : 0;
  for (size_t layer = 0; layer < config.layers; ++layer) {
    LayerTraits& traits = config.traits[layer];
    const bool turned = turns.empty() ? (layer + 1) % interval != 0 : turns[layer] != 0;
    if (!turned) traits.rope.reset();
    if (slides) traits.sliding = turned ? 0 : window;
  }
}

constexpr ModelType kTypes[] = {{.family = &kSmolLm,
                                 .name = "smollm3",
                                 .architecture = "SmolLM3ForCausalLM",
                                 .note = "layers without rope",
                                 .max_positions = 32768,
                                 .sliding = SlidingRule::kFlag,
                                 .sliding_window = 0,
                                 .rope_theta = 2000000.0,
                                 .biases = BiasRule::kConfig,
                                 .tied_head = true,
                                 .example = R"({"no_rope_layer_interval": 2})",
                                 .describe = DescribeSmolLm3}};

}  // namespace

constexpr Family kSmolLm = {.types = kTypes, .keys = kUsualKeys, .names = kUsualNames};

}  // namespace mica
