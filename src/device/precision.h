// At which precision products are taken, and where, as the user sets it.
#pragma once

#include "base/dtype.h"
#include "device/device.h"
#include "device/group.h"

namespace mica {

enum class Precision {
  kFp32,  // FP32 operands and sums
  kBf16,  // operands rounded to BF16, exact products, FP32 sums
};
const char* PrecisionName(Precision precision);  // "fp32", "bf16"
// The type of the operands of products: what everything below the settings works with.
DType OperandType(Precision precision);

// How and where a model computes, and with whom.
struct Arithmetic {
  Arithmetic() = default;
  Arithmetic(Precision precision_, Device device_ = Device::Cpu(), const Group& group_ = Group::Alone())
      : precision(precision_), device(device_), group(&group_) {}
  DType operands() const { return OperandType(precision); }

  Precision precision = Precision::kFp32;
  Device device;
  const Group* group = &Group::Alone();
};

}  // namespace mica
