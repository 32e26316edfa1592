// What compressing a model holds of a GPU's memory.
#pragma once

#include <cstdint>

#include "compress/settings.h"
#include "device/memory_plan.h"
#include "model/config.h"

namespace mica {

// The most that the pass over the layers holds at once, from the sizes of the arrays that it makes; `tokens`
// of calibration. resident: the tokens' activations stay on the device, or else rest on the processor.
MemoryPlan PlanCompression(const ModelConfig& config, const CompressionSettings& settings, uint64_t tokens,
                           bool resident);

// Where activations rest: on the device that computes where there is room. Logs the plan; throws Error where
// even the rest has no room. On the processor nothing is planned.
Device PlaceActivations(const ModelConfig& config, const CompressionSettings& settings, uint64_t tokens);

}  // namespace mica
