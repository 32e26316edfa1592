// The directory that a compression of coding `compressed-tensors` ends in, as vLLM loads it, from the shards
// in which its matrices were kept.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "compress/settings.h"
#include "model/weights.h"
#include "record/compression.h"

namespace mica {

// At most what the weight files and their index take besides the matrices of decoder layers, whatever their
// widths: 64 bytes more a file than they do, and what offsets of fewer digits save.
uint64_t CompressedTensorsBytesBesides(const ModelWeights& weights, const CompressionSettings& settings,
                                       const CompressionRecord& record);

// Writes model.safetensors (or shards of at most 5 GB with their index) and config.json in `out`. shards:
// safetensors files that together hold every tensor that is kept, matrices as NAME.weight_packed,
// .weight_scale and .weight_shape. Throws Error for a damaged one.
void WriteCompressedTensors(const ModelWeights& weights, const CompressionSettings& settings,
                            std::span<const std::filesystem::path> shards, const CompressionRecord& record,
                            const std::filesystem::path& out);

}  // namespace mica
