#include "compress/calibrate/moments.h"

#include <cmath>
#include <utility>

#include "base/error.h"
#include "ops/convert/convert.h"

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

double Moments::Normaliser() const {
  if (!(weight_ > 0)) {
    Fail(
        "second moments: {} tokens of total weight {}, expected at least one token of positive weight; give "
        "more calibration text",
        tokens_, weight_);
  }
  return 1.0 / weight_;
}

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
