// How far the inputs of a matrix have moved from those of the original model, and the weights that make up
// for it.
#pragma once

#include <cstddef>

#include "base/matrix.h"
#include "device/array.h"
#include "device/tensor.h"
#include "ops/linalg/arrange.h"  // CheckFinite

namespace mica {

// E[(a_original - a) x^T] over tokens: how something has moved, seen from the inputs x that the compressed
// layers before produce.
class Drift {
 public:
  // a: [tokens, rows]; x: [tokens, cols], on the device.
  Drift(size_t rows, size_t cols, Device device = Device::Cpu());

  // All of the same tokens and of one type, as in ops/gram/drift_sum.h.
  void Add(ConstTensor original, ConstTensor moved, ConstTensor x);

  Matrix<float> Mean() const;  // [rows, cols]
  Array TakeMean();            // the same on the device; nothing is left here

 private:
  Array sum_;  // [rows, cols] FP32
  size_t tokens_ = 0;
};

// What is known of a matrix's inputs x when it is solved, FP32 on one device.
struct InputMoments {
  ConstTensor h;      // E[x x^T], [cols, cols]
  ConstTensor drift;  // E[(x_original - x) x^T], [cols, cols]; empty without the original model's stream
  // E[(r_original - r) x^T], [rows, cols], r the residual stream that the matrix adds to; empty for matrices
  // that add to none.
  ConstTensor residual;
};

}  // namespace mica
