#include "compress/calibrate/drift.h"

#include "base/error.h"
#include "ops/gram/drift_sum.h"

namespace mica {

Drift::Drift(size_t rows, size_t cols) : sum_(rows, cols, 0.0f) {}

void Drift::Add(ConstTensor original, ConstTensor moved, ConstTensor x) {
  AddDriftSum(original, moved, x, sum_);
  tokens_ += x.rows;
}

Matrix<float> Drift::Mean() const {
  MICA_CHECK(tokens_ > 0);
  Matrix<float> mean(sum_.rows(), sum_.cols());
  const float factor = 1.0f / static_cast<float>(tokens_);
  for (size_t i = 0; i < mean.size(); ++i) mean.data()[i] = factor * sum_.data()[i];
  return mean;
}

}  // namespace mica
