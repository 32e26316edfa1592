#include "compress/calibrate/drift.h"

#include <utility>

#include "base/error.h"
#include "ops/gram/drift_sum.h"
#include "ops/linalg/arrange.h"

namespace mica {

Drift::Drift(size_t rows, size_t cols, Device device) : sum_(rows, cols, DType::kF32, device) {
  FillZero(sum_.view());
}

void Drift::Add(ConstTensor original, ConstTensor moved, ConstTensor x) {
  AddDriftSum(original, moved, x, sum_.view());
  tokens_ += x.rows;
}

Matrix<float> Drift::Mean() const {
  MICA_CHECK(tokens_ > 0);
  Matrix<float> mean(sum_.rows(), sum_.cols());
  Copy(sum_.view(), mean);
  ScaleValues(1.0f / static_cast<float>(tokens_), mean, mean);
  return mean;
}

Array Drift::TakeMean() {
  MICA_CHECK(tokens_ > 0);
  const Tensor sum = sum_.view();
  ScaleValues(1.0f / static_cast<float>(tokens_), sum, sum);
  return std::move(sum_);
}

}  // namespace mica
