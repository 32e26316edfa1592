// Views of matrices whose type of element and place are facts of run time. Ops take and give them; an op
// looks at dtype and device once and its callers never do.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "base/half.h"
#include "base/matrix.h"
#include "device/device.h"

namespace mica {

// The DType of a C++ type: kDTypeOf<BF16> is DType::kBF16.
template <typename T>
inline constexpr DType kDTypeOf = [] {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, BF16> || std::is_same_v<T, F16>);
  if constexpr (std::is_same_v<T, float>) return DType::kF32;
  if constexpr (std::is_same_v<T, BF16>) return DType::kBF16;
  return DType::kF16;
}();

// rows x cols values of type dtype on a device, row-major; consecutive rows are `stride` values apart (stride
// >= cols). Owns nothing. Byte is std::byte or const std::byte.
template <typename Byte>
struct BasicTensor {
  template <typename T>
  using Value = std::conditional_t<std::is_const_v<Byte>, const T, T>;

  Byte* data = nullptr;
  size_t rows = 0;
  size_t cols = 0;
  size_t stride = 0;  // in values
  DType dtype = DType::kF32;
  Device device;

  BasicTensor() = default;
  BasicTensor(Byte* data_, size_t rows_, size_t cols_, size_t stride_, DType dtype_, Device device_)
      : data(data_), rows(rows_), cols(cols_), stride(stride_), dtype(dtype_), device(device_) {}

  // From matrices on the host; a writable one converts to a read-only tensor, never the other way.
  template <typename T>
  requires(std::is_const_v<Byte> || !std::is_const_v<T>) BasicTensor(const MatrixView<T>& view)
      : data(reinterpret_cast<Byte*>(view.data)),
        rows(view.rows),
        cols(view.cols),
        stride(view.stride),
        dtype(kDTypeOf<std::remove_const_t<T>>) {}
  template <typename T>
  BasicTensor(Matrix<T>& matrix) : BasicTensor(matrix.view()) {}
  template <typename T>
  requires(std::is_const_v<Byte>) BasicTensor(const Matrix<T>& matrix) : BasicTensor(matrix.view()) {}
  // One row, such as a bias or the weights of a norm; empty when there are none.
  template <typename T>
  requires(std::is_const_v<Byte>) BasicTensor(const std::vector<T>& row)
      : BasicTensor(MatrixView<const T>(row.data(), 1, row.size())) {}
  template <typename Other>
  requires(std::is_const_v<Byte> && !std::is_const_v<Other>) BasicTensor(const BasicTensor<Other>& other)
      : BasicTensor(other.data, other.rows, other.cols, other.stride, other.dtype, other.device) {}

  bool empty() const { return rows == 0 || cols == 0; }

  // The values, for code that runs on the processor: they must be of type T and lie there.
  template <typename T>
  MatrixView<Value<T>> host() const {
    MICA_CHECK(dtype == kDTypeOf<T>);
    MICA_CHECK(device == Device::Cpu());
    return {reinterpret_cast<Value<T>*>(data), rows, cols, stride};
  }

  // Rows [first, first + count).
  BasicTensor Rows(size_t first, size_t count) const {
    return {data + first * stride * DTypeBytes(dtype), count, cols, stride, dtype, device};
  }
  // Columns [first, first + count).
  BasicTensor Cols(size_t first, size_t count) const {
    return {data + first * DTypeBytes(dtype), rows, count, stride, dtype, device};
  }
};

using Tensor = BasicTensor<std::byte>;             // may be written
using ConstTensor = BasicTensor<const std::byte>;  // may be read

}  // namespace mica
