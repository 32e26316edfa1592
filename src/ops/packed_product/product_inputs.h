// What is multiplied with weights: values, or what one op makes of values, which then need not be written.
#pragma once

#include <cstddef>

#include "device/array.h"
#include "device/tensor.h"
#include "ops/activation/activation_kind.h"

namespace mica {

// [tokens, inputs] FP32. All tensors are on one device.
struct ProductInputs {
  enum class Kind { kPlain, kNormed, kGated };

  static ProductInputs Plain(ConstTensor x) { return {.kind = Kind::kPlain, .x = x}; }
  // RmsNorm(x, weight, epsilon) (ops/norm/norm.h).
  static ProductInputs Normed(ConstTensor x, ConstTensor weight, float epsilon) {
    return {.kind = Kind::kNormed, .x = x, .with = weight, .epsilon = epsilon};
  }
  // Gated(activation, gate, up) (ops/activation/activation.h).
  static ProductInputs Gated(Activation activation, ConstTensor gate, ConstTensor up) {
    return {.kind = Kind::kGated, .x = gate, .with = up, .activation = activation};
  }

  Kind kind = Kind::kPlain;
  ConstTensor x;          // or gate
  ConstTensor with = {};  // the norm's weight, [1, inputs], or up
  float epsilon = 0;
  Activation activation = Activation::kSilu;

  size_t rows() const { return x.rows; }
  size_t cols() const { return x.cols; }
  Device device() const { return x.device; }
  // Stops where the shapes do not belong together.
  void Check() const;
  // Writes them: out [tokens, inputs] FP32.
  void Write(Tensor out) const;
};

}  // namespace mica
