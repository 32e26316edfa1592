// What a compression will take, estimated from the settings and the shape of the model.
#pragma once

#include <cstdint>

#include "compress/settings.h"
#include "device/memory_plan.h"
#include "model/config.h"

namespace mica {

// The most memory that the layers take of the device that computes, within some tenths: both models' residual
// streams, what a sweep keeps for the next one, the matrices of a layer, and the larger of a sweep's moments
// and a solver's work. settings.calibration.seqlen must be known. Fisher information takes a share of what is
// free instead.
MemoryPlan PlanCompression(const CompressionSettings& settings, const ModelConfig& config);

// What the packed matrices take on the disk, at most about.
double EstimatedMatrixBytes(const CompressionSettings& settings, const ModelConfig& config);
// The most that a file of statistics takes beside some MB.
uint64_t EstimatedStatisticsBytes(const CompressionSettings& settings);

}  // namespace mica
