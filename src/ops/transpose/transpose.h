// Transposition, for products with the gradient side of a matrix.
#pragma once

#include "base/matrix.h"

namespace mica {

// out[c, r] = in[r, c]; spread over the threads.
Matrix<float> Transposed(MatrixView<const float> in);

}  // namespace mica
