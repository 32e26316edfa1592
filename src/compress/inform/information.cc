#include "compress/inform/information.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "compress/inform/symmetric.h"

namespace mica {
namespace {

constexpr std::array<std::pair<Estimator, const char*>, 4> kEstimatorNames = {
    {{Estimator::kGaussian, "gaussian"},
     {Estimator::kCopula, "copula"},
     {Estimator::kHistogram, "histogram"},
     {Estimator::kKnn, "knn"}}};

// H_jj is rounded to FP32: below this share of it a variance is rounding noise.
constexpr double kLeastVariance = 1e-6;

}  // namespace

Estimator ParseEstimator(const std::string& name) {
  for (const auto& [estimator, known] : kEstimatorNames) {
    if (name == known) return estimator;
  }
  Fail("estimator \"{}\" is unknown, expected gaussian, copula, histogram or knn", name);
}

const char* EstimatorName(Estimator estimator) {
  for (const auto& [known, name] : kEstimatorNames) {
    if (estimator == known) return name;
  }
  MICA_CHECK(false);
}

Matrix<float> GaussianInformation(MatrixView<const float> second_moment, const std::vector<double>& mean) {
  const size_t n = second_moment.rows;
  MICA_CHECK(second_moment.cols == n);
  MICA_CHECK(mean.size() == n);
  std::vector<double> inverse_deviation(n);
  for (size_t j = 0; j < n; ++j) {
    const double energy = second_moment(j, j);
    const double variance = energy - mean[j] * mean[j];
    inverse_deviation[j] = variance > kLeastVariance * energy ? 1.0 / std::sqrt(variance) : 0.0;
  }
  Matrix<float> information(n, n);
  FillSymmetric(information, [&](size_t i, size_t j) {
    const double covariance = second_moment(i, j) - mean[i] * mean[j];
    const double rho = std::min(std::abs(covariance * inverse_deviation[i] * inverse_deviation[j]),
                                1.0 - kCorrelationMargin);
    return static_cast<float>(-0.5 * std::log((1.0 - rho) * (1.0 + rho)));
  });
  return information;
}

void NormaliseInformation(MatrixView<float> information) {
  ParallelFor(information.rows, [&](size_t i) {
    for (size_t j = 0; j < information.cols; ++j) {
      float& value = information(i, j);
      value = static_cast<float>(std::sqrt(-std::expm1(-2.0 * std::max(0.0f, value))));
    }
  });
}

}  // namespace mica
