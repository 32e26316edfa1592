// A buffer for the activations of a model, of whatever type its products take.
#pragma once

#include <cstddef>

#include "base/dtype.h"
#include "base/matrix.h"
#include "device/tensor.h"

namespace mica {

// Owns [rows, cols] values of one dtype, dense, 64-byte aligned, uninitialised until written. Move-only.
class Activations {
 public:
  Activations() = default;
  Activations(size_t rows, size_t cols, DType dtype) { Resize(rows, cols, dtype); }

  // Gives the buffer this shape and type; contents are lost. Memory is taken only when it must grow.
  void Resize(size_t rows, size_t cols, DType dtype);
  Tensor view();
  ConstTensor view() const;
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }

 private:
  Matrix<std::byte> bytes_;
  size_t rows_ = 0, cols_ = 0;
  DType dtype_ = DType::kF32;
};

}  // namespace mica
