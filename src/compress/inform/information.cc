#include "compress/inform/information.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/threads.h"
#include "compress/curvature/damped_factor.h"
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

std::vector<double> ConditionalInformation(MatrixView<const float> second_moment, double damping) {
  const size_t n = second_moment.rows;
  MICA_CHECK(second_moment.cols == n);
  MICA_CHECK(n > 0);
  MICA_CHECK(damping >= 0);
  // Where none was asked for, as much as the rounding of the sums needs.
  constexpr double kLeastDamping = 1e-3;
  DampingPolicy policy{.share = damping,
                       .mean = 0,
                       .first_raise = 1e-6,
                       .most_share = std::max(damping, kLeastDamping),
                       .failure = fmt::format("second moments of {} channels are not positive definite at "
                                              "damping {}; the calibration inputs are corrupt",
                                              n, std::max(damping, kLeastDamping))};
  for (size_t j = 0; j < n; ++j) policy.mean += second_moment(j, j) / static_cast<double>(n);
  const DampedFactor factor(second_moment, {}, FactorForm::kScaledLowerInverse, policy);
  const MatrixView<const float> lower = factor.matrix();
  // [H^-1]_jj of the scaled matrix is the squared norm of column j of L^-1.
  constexpr size_t kColumns = 64;
  std::vector<double> information(n);
  ParallelFor((n + kColumns - 1) / kColumns, [&](size_t block) {
    const size_t first = block * kColumns;
    const size_t count = std::min(kColumns, n - first);
    double squares[kColumns] = {};
    for (size_t i = first; i < n; ++i) {
      const float* row = lower.row(i) + first;
      for (size_t c = 0; c < count; ++c) squares[c] += double{row[c]} * row[c];
    }
    for (size_t c = 0; c < count; ++c) information[first + c] = std::max(0.0, 0.5 * std::log(squares[c]));
  });
  return information;
}

}  // namespace mica
