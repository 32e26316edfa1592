// Tensors that are stored without calibration: norms and biases, embedding and output head of 16 bits.
#pragma once

#include <string>

#include "io/container/checkpoint.h"
#include "io/packed/packed_checkpoint.h"

namespace mica {

// Adds `tensor` as it is.
void CopyTensor(const Checkpoint& checkpoint, const TensorView& tensor, PackedShard& shard);

// Adds the matrix `name` + ".weight" rounded to nearest at `bits` bits with scales of `group_size` columns;
// 16 bits store it as FP16.
void AddRounded(const Checkpoint& checkpoint, const std::string& name, int bits, size_t group_size,
                PackedShard& shard);

}  // namespace mica
