// Weights of packed matrices, and whether a packed checkpoint is what was written.
#pragma once

#include <cstddef>
#include <string>

#include "device/tensor.h"
#include "io/container/checkpoint.h"
#include "record/compression.h"

namespace mica {

// out [any, cols], on any device (ops/codes/codes.h), = rows [first_row, first_row + out.rows) of the matrix packed under `name`: opens and
// checks it, decodes and gives the mapped pages back. For many small ranges keep what OpenPacked gives
// instead.
void DecodePacked(const Checkpoint& checkpoint, const std::string& name, size_t first_row,
                  Tensor out);

// Throws Error unless what was opened is the packed checkpoint that was written, and all of it: matrices come
// packed and only packed, the directory has no other weight files, and those that it has are of the bytes
// that its compression.json knows (if it is there; older ones know the sum alone). Which matrices there must
// be is for ModelWeights to check.
void CheckPackedDirectory(const Checkpoint& checkpoint);

// What it checks of the files alone: for checkpoints of other formats that compression.json stands beside.
void CheckRecordedFiles(const Checkpoint& checkpoint);

// The weight files of a packed checkpoint, as compression.json knows them.
Ordered<ShardFile> ShardsOf(const Checkpoint& checkpoint);

}  // namespace mica
