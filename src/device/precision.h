// At which precision products are taken.
#pragma once

namespace mica {

enum class Precision {
  kFp32,  // FP32 operands and sums
  kBf16,  // operands rounded to BF16, exact products, FP32 sums
};
const char* PrecisionName(Precision precision);  // "fp32", "bf16"

}  // namespace mica
