// How something has moved, seen from the inputs of a matrix.
#pragma once

#include "device/tensor.h"

namespace mica {

// sum[r, c] += sum_t (original[t, r] - moved[t, r]) x[t, c]. original, moved: [tokens, rows], x: [tokens,
// cols], all of one type, FP32 or BF16; differences are rounded to that type, sums are FP32. sum: [rows,
// cols] FP32, dense. Tokens are taken 2048 at a time on a CUDA device. Results do not depend on the number of
// threads.
void AddDriftSum(ConstTensor original, ConstTensor moved, ConstTensor x, Tensor sum);

}  // namespace mica
