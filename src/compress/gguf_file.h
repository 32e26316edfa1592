// The GGUF file that a compression of coding `gguf` ends in, from the shards in which its matrices were kept.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "compress/ends.h"
#include "io/container/gguf.h"
#include "model/weights.h"
#include "record/compression.h"

namespace mica {

// Its name in the output directory.
inline constexpr const char* kGgufFile = "model.gguf";

// Bytes of the file besides the matrices of decoder layers, whatever their types, and besides embedding and
// head when ends is null. model: where the original was opened from.
uint64_t GgufBytesBesides(const ModelWeights& weights, const std::filesystem::path& model, const Ends* ends,
                          const CompressionRecord& record);

// Writes `out`. shards: safetensors files that together hold every matrix under the original's names, blocks
// of a type or 16-bit values. Norms and biases are the original's. Throws Error for a damaged shard.
void WriteGgufFile(const ModelWeights& weights, const std::filesystem::path& model,
                   std::span<const std::filesystem::path> shards, const CompressionRecord& record,
                   const std::filesystem::path& out);

}  // namespace mica
