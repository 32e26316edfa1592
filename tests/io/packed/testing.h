// Weights of a packed matrix in a checkpoint, for tests.
#pragma once

#include <string>

#include "io/packed/stored_matrix.h"
#include "ops/codes/codes.h"

namespace mica {

inline void DecodeStored(const Checkpoint& checkpoint, const std::string& name, size_t first_row,
                         MatrixView<float> out) {
  Decode(OpenPacked(checkpoint, name).parts, first_row, out);
}

}  // namespace mica
