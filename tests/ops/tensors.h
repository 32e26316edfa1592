// Tensors of any type for the tests of ops: values rounded by the scalar conversions of base/half.h, outputs
// filled with NaN, everything back as FP32.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "device/array.h"
#include "device/tensor.h"
#include "ops/tile/dispatch.h"
#include "tests/ops/random_values.h"

namespace mica {

// Every bit is set, so that every value of any floating-point type is NaN.
inline Array Poisoned(size_t rows, size_t cols, DType dtype) {
  Array out(rows, cols, dtype);
  std::memset(out.view().data, 0xFF, rows * cols * DTypeBytes(dtype));
  return out;
}

inline Array FromFloats(const std::vector<float>& values, size_t rows, size_t cols, DType dtype) {
  EXPECT_EQ(values.size(), rows * cols);
  Array out(rows, cols, dtype);
  DispatchFloat(dtype, [&](auto type) {
    using T = decltype(type);
    for (size_t i = 0; i < values.size(); ++i) out.view().host<T>().data[i] = Narrow<T>(values[i]);
  });
  return out;
}

inline Array RandomTensor(size_t rows, size_t cols, DType dtype, uint32_t seed, float scale = 1.0f) {
  return FromFloats(RandomValues(rows * cols, seed, scale), rows, cols, dtype);
}

// Dense and row by row.
inline std::vector<float> Floats(const ConstTensor& x) {
  std::vector<float> out;
  DispatchFloat(x.dtype, [&](auto type) {
    const auto view = x.host<decltype(type)>();
    for (size_t r = 0; r < x.rows; ++r) {
      for (size_t c = 0; c < x.cols; ++c) out.push_back(Widen(view(r, c)));
    }
  });
  return out;
}

// Whether every value is still as Poisoned has left it.
inline bool AllNan(const ConstTensor& x) {
  for (const float value : Floats(x)) {
    if (!std::isnan(value)) return false;
  }
  return true;
}

// One rounding to the type, relative to a value of about 1.
inline double Step(DType dtype) {
  if (dtype == DType::kBF16) return 0x1p-8;
  return dtype == DType::kF16 ? 0x1p-11 : 0.0;
}

// Parameter of the tests that run over the types of the operands of products.
class OperandTypes : public testing::TestWithParam<DType> {};
inline std::string NameOfType(const testing::TestParamInfo<DType>& info) { return DTypeName(info.param); }
#define MICA_OVER_OPERAND_TYPES(suite) \
  INSTANTIATE_TEST_SUITE_P(Types, suite, testing::Values(DType::kF32, DType::kBF16), NameOfType)

}  // namespace mica
