// Inputs of linear layers, in the precision of the products.
#pragma once

#include <cstddef>

#include "base/half.h"
#include "base/matrix.h"
#include "device/precision.h"

namespace mica {

// Gives the matrix this shape; contents are lost, memory is taken anew only when the shape differs.
template <typename T>
void Reshape(Matrix<T>& matrix, size_t rows, size_t cols) {
  if (matrix.rows() == rows && matrix.cols() == cols) return;
  matrix = Matrix<T>();
  matrix = Matrix<T>(rows, cols);
}

// Inputs of linear layers: [tokens, cols], FP32 or BF16 as the precision of the model asks; exactly one view
// is not empty.
struct ActivationView {
  MatrixView<const float> fp32;
  MatrixView<const BF16> bf16;
  size_t tokens() const { return fp32.data != nullptr ? fp32.rows : bf16.rows; }
  size_t cols() const { return fp32.data != nullptr ? fp32.cols : bf16.cols; }
};

// A buffer for such inputs.
class Activations {
 public:
  Activations() = default;
  Activations(size_t tokens, size_t cols, Precision precision);
  ActivationView view() const;
  Precision precision() const { return precision_; }
  size_t tokens() const { return tokens_; }
  size_t cols() const { return cols_; }
  // Gives the buffer this shape; contents are lost. Memory is taken only when it must grow.
  void Resize(size_t tokens, size_t cols, Precision precision);
  MatrixView<float> fp32() { return {fp32_.data(), tokens_, cols_}; }
  MatrixView<BF16> bf16() { return {bf16_.data(), tokens_, cols_}; }

 private:
  Precision precision_ = Precision::kFp32;
  size_t tokens_ = 0, cols_ = 0;
  Matrix<float> fp32_;
  Matrix<BF16> bf16_;
};

}  // namespace mica
