// For tests of ops on a CUDA device, which are skipped where there is none.
#pragma once

#include <gtest/gtest.h>

#include "device/array.h"
#include "device/cuda.h"
#include "device/device.h"
#include "tests/ops/tensors.h"

namespace mica {

// To stand first in a test.
#define MICA_NEEDS_CUDA() \
  if (CudaDevices() == 0) GTEST_SKIP() << CudaAbsence()

inline Array OnCuda(ConstTensor x) { return CopyTo(Device::Cuda(), x); }
inline Array ToHost(ConstTensor x) { return CopyTo(Device::Cpu(), x); }
// Every value NaN.
inline Array PoisonedOnCuda(size_t rows, size_t cols, DType dtype) {
  return OnCuda(Poisoned(rows, cols, dtype).view());
}
inline std::vector<float> FloatsOf(const Array& x) { return Floats(ToHost(x.view()).view()); }

}  // namespace mica
