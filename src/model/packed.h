// Weights of packed matrices.
#pragma once

#include <cstddef>
#include <string>

#include "base/matrix.h"
#include "io/container/checkpoint.h"

namespace mica {

// out [any, cols] = rows [first_row, first_row + out.rows) of the matrix packed under `name`: opens and
// checks it, decodes and gives the mapped pages back. For many small ranges keep what OpenPacked gives
// instead.
void DecodePacked(const Checkpoint& checkpoint, const std::string& name, size_t first_row,
                  MatrixView<float> out);

}  // namespace mica
