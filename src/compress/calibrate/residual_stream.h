// The calibration tokens on their way through the model: the residual stream of all windows, stored in 16
// bits.
#pragma once

#include <cstddef>

#include "base/half.h"
#include "base/matrix.h"
#include "compress/calibrate/calibration.h"
#include "model/weights.h"
#include "model/window.h"

namespace mica {

class ResidualStream {
 public:
  // Tokens that go through a layer together: enough work for every thread, small enough that the FP32
  // temporaries stay in some hundred MB.
  static constexpr size_t kPortionTokens = 8192;

  // Embeds every window. wanted_tokens: of a portion, about; whole runs (model/window.h), at least one.
  ResidualStream(const ModelWeights& weights, const Calibration& calibration,
                 size_t wanted_tokens = kPortionTokens);

  size_t tokens() const { return stream_.rows(); }
  size_t window() const { return window_; }

  size_t run_tokens() const { return RunTokens(window_); }
  size_t runs() const { return (tokens() + run_tokens() - 1) / run_tokens(); }

  // The stream in consecutive portions of whole runs.
  size_t portions() const { return (tokens() + portion_tokens() - 1) / portion_tokens(); }
  size_t portion_tokens() const { return portion_tokens_; }
  // One portion as FP32, [tokens, hidden].
  Matrix<float> Load(size_t portion) const;
  // Replaces a portion, rounded to BF16.
  void Store(size_t portion, MatrixView<const float> x);

 private:
  size_t window_, portion_tokens_;
  Matrix<BF16> stream_;  // [tokens, hidden]
};

}  // namespace mica
