#include "model/towers.h"

#include <algorithm>
#include <iterator>

#include "base/error.h"

namespace mica {
namespace {

struct Tower {
  std::string_view key;  // of config.json
  const char* name;
};
constexpr Tower kTowers[] = {{"vision_config", "a vision tower"},
                             {"audio_config", "an audio tower"},
                             {"text_config", "its language model as a part"}};

// Modules in the names of tensors.
constexpr std::string_view kModules[] = {"vision_tower",        "vision_model",          "visual",
                                         "vision_embed_tokens", "audio_tower",           "audio_model",
                                         "audio_embed_tokens",  "multi_modal_projector", "mm_projector",
                                         "embed_vision",        "embed_audio",           "vision_encoder"};

}  // namespace

void RefuseTowers(const Json& config, const std::string& where) {
  if (!config.is_object()) return;
  for (const Tower& tower : kTowers) {
    const auto found = config.find(tower.key);
    if (found == config.end() || !found->is_object() || found->empty()) continue;
    Fail(
        "{}: has {} (\"{}\") of a model that is more than a language model, which is not supported; give a "
        "checkpoint of the language model alone",
        where, tower.name, tower.key);
  }
}

bool IsOfTower(std::string_view tensor) {
  for (size_t dot; (dot = tensor.find('.')) != std::string_view::npos; tensor.remove_prefix(dot + 1)) {
    if (std::ranges::find(kModules, tensor.substr(0, dot)) != std::end(kModules)) return true;
  }
  return false;
}

}  // namespace mica
