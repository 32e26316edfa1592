// Packs and decodes whole matrices: the loops over the tiles, row blocks and scale groups of src/format,
// spread over the threads. Results do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <variant>

#include "base/matrix.h"
#include "format/entropy/entropy_matrix.h"
#include "format/entropy/parts.h"
#include "format/fixed/fixed_matrix.h"
#include "format/fixed/parts.h"
#include "format/packed_matrix.h"

namespace mica {

// The stored tensors of a matrix as docs/format.md describes them; aborts when its members do not fit each
// other.
PackedMatrix Pack(const FixedMatrix& matrix);
// The model (tables and classes) is stored as it stands in the matrix: FitEntropyModel chooses it.
PackedMatrix Pack(const EntropyMatrix& matrix);
// With so many lanes instead of what ChooseLanes says.
PackedMatrix Pack(const EntropyMatrix& matrix, size_t lanes);

// out [rows, cols], original order of rows and columns = the weights in FP32, as they will be read back.
void Decode(const FixedMatrix& matrix, MatrixView<float> out);
void Decode(const EntropyMatrix& matrix, MatrixView<float> out);

// The same of stored tensors: rows [first_row, first_row + out.rows), all columns. Throws Error when the
// range or the width of `out` does not fit the matrix, and when a stream of coding `entropy` is damaged.
void Decode(const FixedParts& parts, size_t first_row, MatrixView<float> out);
void Decode(const EntropyParts& parts, size_t first_row, MatrixView<float> out);
void Decode(const std::variant<FixedParts, EntropyParts>& parts, size_t first_row, MatrixView<float> out);

}  // namespace mica
