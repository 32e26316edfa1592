// The calibration tokens on their way through the model: the residual stream of all windows, stored in 16
// bits.
#pragma once

#include <cstddef>

#include "base/half.h"
#include "base/matrix.h"
#include "compress/calibrate/calibration.h"
#include "model/weights.h"

namespace mica {

class ResidualStream {
 public:
  // Embeds every window.
  ResidualStream(const ModelWeights& weights, const Calibration& calibration);

  size_t tokens() const { return stream_.rows(); }
  size_t window() const { return window_; }

  // The stream in consecutive portions of whole windows.
  size_t portions() const { return (tokens() + portion_tokens() - 1) / portion_tokens(); }
  size_t portion_tokens() const;
  // One portion as FP32, [tokens, hidden].
  Matrix<float> Load(size_t portion) const;
  // Replaces a portion, rounded to BF16.
  void Store(size_t portion, MatrixView<const float> x);

 private:
  size_t window_;
  Matrix<BF16> stream_;  // [tokens, hidden]
};

}  // namespace mica
