// Integers of coding `fixed` on a CUDA device; included by *_cuda.cu only.
#pragma once

#include <cstdint>

#include "device/tensor.h"
#include "format/fixed/parts.h"

namespace mica::cuda {

// Of a weight that is pruned or has width 0: in 16 bits it would be no finite FP16 value.
inline constexpr uint16_t kNoFixedCode = 0xFFFF;

// codes [rows, cols] U16 in stored order, kNoFixedCode where there is none. zeros [rows, groups] U8, dense;
// those of groups without scales are not set. Throws Error where a code of 16 bits is not finite.
void DecodeCodes(const FixedParts& parts, Tensor codes, Tensor zeros);

}  // namespace mica::cuda
