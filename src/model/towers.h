// Models that see or hear: towers beside the language model, which mica does not compute.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace mica {

// Throws Error naming `where` (a config.json) and the key when the model has a vision or audio tower, or its
// language model's configuration under "text_config".
void RefuseTowers(const Json& config, const std::string& where);

// Whether a tensor is of a tower, or of what leads from one into the language model:
// "model.vision_tower.encoder.0.weight".
bool IsOfTower(std::string_view tensor);

}  // namespace mica
