// What a search by loss and rate starts from where the weights are.
#pragma once

#include "device/tensor.h"
#include "format/entropy/entropy_matrix.h"

namespace mica {

// As GuessClasses (ops/codes/entropy_model.h), w: FP32 on any device; a class may differ from the processor's
// where FP32 sums decide. Throws Error when a weight is not finite, on a CUDA device only when they are
// solved.
void StartClasses(ConstTensor w, EntropyMatrix& matrix);

}  // namespace mica
