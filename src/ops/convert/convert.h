// Conversion between the types of elements: the only place where activations and gradients are rounded or
// widened.
#pragma once

#include "device/array.h"
#include "device/tensor.h"

namespace mica {

// out[t, c] = in[t, c] in the type of out; FP32, BF16 or F16 each. Narrower types are rounded once, to
// nearest, ties to even; NaN stays NaN. in and out: [rows, cols] on one device, not overlapping unless they
// are the same.
void Convert(ConstTensor in, Tensor out);

// out[t, c] = factors[t] * in[t, c]: the product in FP32, rounded once to the type of out. factors: [1, rows]
// FP32.
void ConvertScaled(ConstTensor in, ConstTensor factors, Tensor out);

// `in` itself when it has the type, else a copy of that type in `buffer`, which lives longer than the result.
ConstTensor Converted(ConstTensor in, DType dtype, Array& buffer);

}  // namespace mica
