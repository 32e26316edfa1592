// Second moments and means of a linear layer's inputs, H = E[x x^T], accumulated over calibration tokens.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "model/forward.h"

namespace mica {

// Products of one block of tokens are summed in FP32, blocks in FP64: the result changes by less than 1e-6
// (relative to the largest diagonal entry) when the tokens come in another order or other portions, and not
// at all with the number of threads.
class Moments {
 public:
  explicit Moments(size_t cols);

  // Adds tokens [tokens, cols]; `weights` (one a token, >= 0) or empty for 1 each. Throws Error when an input
  // is NaN or infinite.
  void Add(const ActivationView& x, std::span<const float> weights = {});

  size_t cols() const { return cols_; }
  double weight() const { return weight_; }  // sum of the tokens' weights
  size_t tokens() const { return tokens_; }
  Matrix<float> SecondMoment() const;  // H, [cols, cols], symmetric
  std::vector<double> Mean() const;    // [cols]

 private:
  size_t cols_;
  size_t tokens_ = 0;
  double weight_ = 0;
  Matrix<double> sum_;        // [cols, cols], lower triangle
  std::vector<double> mean_;  // [cols], sums
};

}  // namespace mica
