#include "compress/calibrate/moments.h"

#include "base/error.h"
#include "device/activations.h"

namespace mica {

void Moments::Add(const ActivationView& x, std::span<const float> weights) {
  if (x.fp32.data != nullptr) {
    gram_.Add(x.fp32, weights);
  } else {
    gram_.Add(x.bf16, weights);
  }
  tokens_ += x.tokens();
  if (weights.empty()) {
    weight_ += static_cast<double>(x.tokens());
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

}  // namespace mica
