// How far the inputs of a matrix have moved from those of the original model, and the weights that make up
// for it.
#pragma once

#include <cstddef>

#include "base/matrix.h"
#include "device/tensor.h"

namespace mica {

// E[(a_original - a) x^T] over tokens: how something has moved, seen from the inputs x that the compressed
// layers before produce.
class Drift {
 public:
  // a: [tokens, rows]; x: [tokens, cols].
  Drift(size_t rows, size_t cols);

  // All of the same tokens and of one type, as in ops/gram/drift_sum.h.
  void Add(ConstTensor original, ConstTensor moved, ConstTensor x);

  Matrix<float> Mean() const;  // [rows, cols]

 private:
  Matrix<float> sum_;  // [rows, cols]
  size_t tokens_ = 0;
};

// What is known of a matrix's inputs x when it is solved.
struct InputMoments {
  MatrixView<const float> h;  // E[x x^T], [cols, cols]
  MatrixView<const float>
      drift;  // E[(x_original - x) x^T], [cols, cols]; empty without the original model's stream
  // E[(r_original - r) x^T], [rows, cols], r the residual stream that the matrix adds to; empty for matrices
  // that add to none.
  MatrixView<const float> residual;
};

}  // namespace mica
