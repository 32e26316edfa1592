// How far the inputs of a matrix have moved from those of the original model, and the weights that make up
// for it.
#pragma once

#include <cstddef>

#include "base/matrix.h"
#include "model/forward.h"

namespace mica {

// D = E[(x_original - x) x^T], where x are the inputs that the compressed layers before produce, for the same
// tokens.
class Drift {
 public:
  explicit Drift(size_t cols);

  // Adds tokens: both [tokens, cols], of one precision. Differences are rounded to that precision; sums are
  // FP32 within a call and between calls. Results do not depend on the number of threads.
  void Add(const ActivationView& original, const ActivationView& x);

  Matrix<float> Mean() const;  // [cols, cols]

 private:
  Matrix<float> sum_;  // [cols, cols]
  size_t tokens_ = 0;
};

// w + strength w D (H + damping mean(diag H) I)^-1: with strength 1 the least-squares weights for the
// original outputs W x_original given the moved inputs x (asymmetric calibration: Li et al., GPTAQ,
// 2504.02692); a strength below 1 trusts the estimate of D less. w: [rows, cols]; h: [cols, cols]. Throws
// Error when H is not positive definite at any reasonable damping.
Matrix<float> CompensateDrift(MatrixView<const float> w, MatrixView<const float> h,
                              MatrixView<const float> drift, double strength, double damping);

}  // namespace mica
