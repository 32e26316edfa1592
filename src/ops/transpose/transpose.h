// Transposition, for products with the gradient side of a matrix.
#pragma once

#include "device/array.h"
#include "device/tensor.h"

namespace mica {

// out[c, r] = in[r, c], all of one type (FP32, BF16 or F16) on one device, not overlapping; spread over the
// threads.
void Transpose(ConstTensor in, Tensor out);

// The same as a matrix of its own.
Array Transposed(ConstTensor in);

}  // namespace mica
