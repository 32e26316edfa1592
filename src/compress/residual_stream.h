// The calibration tokens on their way through the model: the residual stream of all windows, stored in 16
// bits.
#pragma once

#include <cstddef>
#include <functional>

#include "base/half.h"
#include "base/matrix.h"
#include "compress/calibration.h"
#include "model/weights.h"

namespace mica {

class ResidualStream {
 public:
  // Embeds every window.
  ResidualStream(const ModelWeights& weights, const Calibration& calibration);

  size_t tokens() const { return stream_.rows(); }
  size_t window() const { return window_; }

  // Calls body(first_token, x) for consecutive portions of whole windows; x is [tokens, hidden] FP32.
  void Read(const std::function<void(size_t first_token, MatrixView<const float> x)>& body) const;
  // The same with x written back (rounded to BF16) after each call.
  void Update(const std::function<void(size_t first_token, MatrixView<float> x)>& body);

 private:
  size_t PortionTokens() const;
  void Load(size_t first_token, MatrixView<float> x) const;
  void Store(size_t first_token, MatrixView<const float> x);

  size_t window_;
  Matrix<BF16> stream_;  // [tokens, hidden]
};

}  // namespace mica
