// A checkpoint of compressed-tensors as one of plain matrices.
#pragma once

#include <filesystem>

#include "io/container/checkpoint.h"
#include "model/config.h"

namespace mica {

// Puts one tensor NAME.weight, decoded when it is read (TensorView::integers), in the place of
// NAME.weight_packed, weight_scale, weight_shape, weight_zero_point and weight_g_idx, as quantization_config
// of config.json describes them. Throws Error naming the tensor when it does not fit that, when one is
// missing or belongs to none, and when a matrix of a decoder layer that is to be packed is not.
void AdoptCompressedTensors(Checkpoint& checkpoint, const ModelConfig& config);

// Opens such a directory: its files are compared with the compression.json beside them (packed.h), if there
// is one, and its tensors adopted.
Checkpoint OpenCompressedTensors(const std::filesystem::path& directory, const ModelConfig& config);

}  // namespace mica
