// The one place where a type known at run time becomes a type of C++: an op asks once, outside its loops.
#pragma once

#include <utility>

#include "base/dtype.h"
#include "base/error.h"
#include "base/half.h"

namespace mica {

// body(float{}) or body(BF16{}), by the type of the operands of products; the argument only names the type.
template <typename Body>
decltype(auto) DispatchOperand(DType dtype, Body&& body) {
  MICA_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
  return dtype == DType::kF32 ? body(float{}) : body(BF16{});
}

// The same with body(F16{}) for F16.
template <typename Body>
decltype(auto) DispatchFloat(DType dtype, Body&& body) {
  return dtype == DType::kF16 ? body(F16{}) : DispatchOperand(dtype, std::forward<Body>(body));
}

// Single values of those types, for code that is not worth a vector.
inline float Widen(float value) { return value; }
inline float Widen(BF16 value) { return ToFloat(value); }
inline float Widen(F16 value) { return ToFloat(value); }
template <typename T>
T Narrow(float value);
template <>
inline float Narrow<float>(float value) {
  return value;
}
template <>
inline BF16 Narrow<BF16>(float value) {
  return ToBF16(value);
}
template <>
inline F16 Narrow<F16>(float value) {
  return ToF16(value);
}

}  // namespace mica
