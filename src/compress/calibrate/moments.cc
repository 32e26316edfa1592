#include "compress/calibrate/moments.h"

#include <cmath>
#include <utility>

#include "base/error.h"
#include "ops/convert/convert.h"
#include "ops/linalg/arrange.h"

namespace mica {

void Moments::Add(ConstTensor x, std::span<const float> weights) {
  gram_.Add(x, weights);
  tokens_ += x.rows;
  if (weights.empty()) {
    weight_ += static_cast<double>(x.rows);
  } else {
    for (const float weight : weights) weight_ += weight;
  }
}

namespace {

double Inverse(double weight, size_t tokens) {
  if (!(weight > 0)) {
    Fail(
        "second moments: {} tokens of total weight {}, expected at least one token of positive weight; give "
        "more calibration text",
        tokens, weight);
  }
  return 1.0 / weight;
}

}  // namespace

double Moments::Normaliser() const { return Inverse(weight_, tokens_); }

void Moments::SecondMoment(Tensor out) const { gram_.CopyScaled(Normaliser(), out); }

Matrix<float> Moments::SecondMoment() const {
  const double factor = Normaliser();
  Matrix<float> h(cols(), cols());
  gram_.CopyScaled(factor, h);
  return h;
}

std::vector<double> Moments::Mean() const {
  const double factor = Normaliser();
  std::vector<double> mean = gram_.ColumnSums();
  for (double& value : mean) value *= factor;
  return mean;
}

BlockMoments::BlockMoments(size_t cols, Device device, const TokenBlocks& blocks)
    : cols_(cols), device_(device), sum_(blocks, cols, cols, device), small_(blocks) {}

void BlockMoments::Add(ConstTensor x, std::span<const float> weights) {
  if (!block_) block_.emplace(cols_, device_);
  block_->Add(x, weights);
}

void BlockMoments::EndStep() {
  Array sum;
  if (block_) {
    sum.Resize(cols_, cols_, DType::kF32, device_);
    block_->TakeSums(sum.view());  // their memory goes back before sums of other ranks come
  }
  ended_.push_back(std::move(block_));
  block_.reset();
  sum_.Add(std::move(sum));
}

const std::vector<double>& BlockMoments::Small() const {
  for (const std::optional<Moments>& block : std::exchange(ended_, {})) {
    if (!block) {
      small_.Add({});
      continue;
    }
    std::vector<double> small = block->ColumnSums();
    small.insert(small.end(), {block->weight(), static_cast<double>(block->tokens())});
    small_.Add(std::move(small));
  }
  return small_.Sum();
}

double BlockMoments::Normaliser() const {
  const std::vector<double>& small = Small();
  return small.empty() ? Inverse(0, 0) : Inverse(small[cols_], static_cast<size_t>(small[cols_ + 1]));
}

Array BlockMoments::TakeSecondMoment(std::optional<size_t> only) {
  const double factor = Normaliser();
  Array h = sum_.Take(only);
  if (!h.empty()) ScaleValues(static_cast<float>(factor), std::as_const(h).view(), h.view());
  return h;
}

std::vector<double> BlockMoments::Mean() const {
  const double factor = Normaliser();
  const std::vector<double>& small = Small();
  std::vector<double> mean(small.begin(), small.begin() + static_cast<ptrdiff_t>(cols_));
  for (double& value : mean) value *= factor;
  return mean;
}

ConstTensor Weighted(ConstTensor x, std::span<const float> weights, Array& scaled) {
  if (weights.empty()) return x;
  std::vector<float> factors(weights.begin(), weights.end());
  for (float& factor : factors) factor = std::sqrt(factor);
  scaled.Resize(x.rows, x.cols, x.dtype, x.device);
  const Array there = CopyTo(x.device, factors);
  ConvertScaled(x, there.view(), scaled.view());
  return std::as_const(scaled).view();
}

}  // namespace mica
