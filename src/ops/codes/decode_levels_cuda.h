// Integers of coding `entropy` on a CUDA device; included by *_cuda.cu only.
#pragma once

#include "device/tensor.h"
#include "format/entropy/parts.h"

namespace mica::cuda {

// levels [rows, cols] I16 = what the states of the trellis give, in original order; false where one does not
// fit, in which case they hold anything. Throws Error where a stream is damaged.
bool DecodeLevels(const EntropyParts& parts, Tensor levels);

}  // namespace mica::cuda
