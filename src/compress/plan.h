// What a compression will take, estimated from the settings and the shape of the model.
#pragma once

#include <cstdint>

#include "compress/settings.h"
#include "device/device.h"
#include "device/memory_plan.h"
#include "model/config.h"

namespace mica {

// The most memory that the layers take of the device that computes, within some tenths: the activations of
// all tokens (both models' residual streams, what a sweep keeps for the next one) if they are to stay there,
// the matrices of a layer, and the larger of a sweep's moments and a solver's work.
// settings.calibration.seqlen must be known. Fisher information takes a share of what is free instead.
MemoryPlan PlanCompression(const CompressionSettings& settings, const ModelConfig& config, bool resident);
// What embedding and head take of it, one after the other: the weights with what they aim at, and the solver's work on
// so many rows at a time.
uint64_t EndBytes(const CompressionSettings& settings, const ModelConfig& config);
// What measuring a layer takes more than that when all its inputs are measured at once.
uint64_t InputsAtOnceBytes(const ModelConfig& config);
// Where those activations rest: on the device that computes or, where it lacks the room, on the processor.
// With what PlanCompression says of that; throws Error when neither has the room. On the processor as it is.
struct Placement {
  Device rest;
  MemoryPlan plan;
};
Placement PlaceActivations(const CompressionSettings& settings, const ModelConfig& config);

// What the packed matrices take on the disk, at most about.
double EstimatedMatrixBytes(const CompressionSettings& settings, const ModelConfig& config);
// The most that a file of statistics takes beside some MB.
uint64_t EstimatedStatisticsBytes(const CompressionSettings& settings, const ModelConfig& config);

}  // namespace mica
