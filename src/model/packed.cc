#include "model/packed.h"

#include "io/packed/stored_matrix.h"
#include "ops/codes/codes.h"

namespace mica {

void DecodePacked(const Checkpoint& checkpoint, const std::string& name, size_t first_row,
                  MatrixView<float> out) {
  const StoredMatrix matrix = OpenPacked(checkpoint, name);
  Decode(matrix.parts, first_row, out);
  matrix.Release(checkpoint);
}

}  // namespace mica
