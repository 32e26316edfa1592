#include "device/precision.h"

namespace mica {

const char* PrecisionName(Precision precision) { return precision == Precision::kFp32 ? "fp32" : "bf16"; }

DType OperandType(Precision precision) { return precision == Precision::kFp32 ? DType::kF32 : DType::kBF16; }

}  // namespace mica
