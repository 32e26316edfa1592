// Transposition, for products with the gradient side of a matrix.
#pragma once

#include "base/matrix.h"
#include "device/tensor.h"

namespace mica {

// out[c, r] = in[r, c], all of one type (FP32, BF16 or F16) on one device, not overlapping; spread over the
// threads.
void Transpose(ConstTensor in, Tensor out);

// The same of a matrix on the host.
Matrix<float> Transposed(MatrixView<const float> in);

}  // namespace mica
