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

void BlockDrift::Add(ConstTensor original, ConstTensor moved, ConstTensor x) {
  if (!block_) block_.emplace(rows_, cols_, device_);
  block_->Add(original, moved, x);
}

void BlockDrift::EndStep(bool has_block) {
  if (has_block && !block_) block_.emplace(rows_, cols_, device_);
  std::vector<double> tokens(block_ ? 1 : 0, block_ ? static_cast<double>(block_->tokens()) : 0);
  Array sum = block_ ? block_->TakeSum() : Array();
  block_.reset();
  sum_.Add(std::move(sum));
  tokens_.Add(std::move(tokens));
}

Array BlockDrift::TakeMean() {
  const double tokens = tokens_.Sum().at(0);
  MICA_CHECK(tokens > 0);
  Array mean = sum_.Take();
  ScaleValues(static_cast<float>(1.0 / tokens), std::as_const(mean).view(), mean.view());
  return mean;
}

}  // namespace mica
