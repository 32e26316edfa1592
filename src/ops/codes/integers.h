// The integers of a matrix of coding `entropy` as a tensor, which may lie on a device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "base/matrix.h"
#include "device/tensor.h"
#include "format/entropy/entropy_matrix.h"

namespace mica {

// Those that the matrix has itself: [rows, cols] of type I16.
inline ConstTensor IntegersOf(const EntropyMatrix& matrix) {
  return {reinterpret_cast<const std::byte*>(matrix.n.data()),
          matrix.n.rows(),
          matrix.n.cols(),
          matrix.n.cols(),
          DType::kI16,
          Device::Cpu()};
}

inline void CheckIntegers(const EntropyFrame& matrix, ConstTensor n) {
  MICA_CHECK(n.dtype == DType::kI16);
  MICA_CHECK(n.rows == matrix.rows);
  MICA_CHECK(n.cols == matrix.cols);
}

// For code that runs on the processor.
inline MatrixView<const int16_t> HostIntegers(ConstTensor n) {
  MICA_CHECK(n.dtype == DType::kI16);
  MICA_CHECK(n.device == Device::Cpu());
  return {reinterpret_cast<const int16_t*>(n.data), n.rows, n.cols, n.stride};
}

}  // namespace mica
