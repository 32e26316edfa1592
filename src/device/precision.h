// At which precision products are taken, as the user sets it.
#pragma once

#include "base/dtype.h"

namespace mica {

enum class Precision {
  kFp32,  // FP32 operands and sums
  kBf16,  // operands rounded to BF16, exact products, FP32 sums
};
const char* PrecisionName(Precision precision);  // "fp32", "bf16"
// The type of the operands of products: what everything below the settings works with.
DType OperandType(Precision precision);

}  // namespace mica
