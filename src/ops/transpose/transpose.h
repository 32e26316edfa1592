// Transposition, for products with the gradient side of a matrix.
#pragma once

#include "device/array.h"
#include "device/tensor.h"

namespace mica {

// out[c, r] = in[r, c]. in: [rows, cols] FP32 on any device, where the result is as well.
Array Transposed(ConstTensor in);

}  // namespace mica
