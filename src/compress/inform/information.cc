#include "compress/inform/information.h"

#include <array>
#include <utility>

#include "base/error.h"

namespace mica {
namespace {

constexpr std::array<std::pair<Estimator, const char*>, 4> kEstimatorNames = {
    {{Estimator::kGaussian, "gaussian"},
     {Estimator::kCopula, "copula"},
     {Estimator::kHistogram, "histogram"},
     {Estimator::kKnn, "knn"}}};

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

}  // namespace mica
