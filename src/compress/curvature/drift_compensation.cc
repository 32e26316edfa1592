#include "compress/curvature/drift_compensation.h"

#include <algorithm>

#include "base/error.h"
#include "ops/linalg/linalg.h"

namespace mica {

DampedFactor DriftInverse(MatrixView<const float> h, double damping) {
  const DampingPolicy policy{
      .share = damping,
      .mean = MeanEnergy(h),
      .first_raise = 1e-4,
      .least_raise = 1e-4,
      .most_raises = 20,
      .failure = fmt::format("second moments of {} input channels are not positive definite at any damping; "
                             "calibrate on other text",
                             h.rows)};
  return DampedFactor(h, {}, FactorForm::kInverse, policy);
}

Matrix<float> CompensateDrift(MatrixView<const float> w, const InputMoments& moments,
                              const DampedFactor& inverse, double strength) {
  const size_t n = moments.h.rows;
  Matrix<float> moved(w.rows, n);
  if (moments.residual.data != nullptr) {
    for (size_t r = 0; r < w.rows; ++r) std::copy_n(moments.residual.row(r), n, moved.row(r));
  } else {
    moved.Fill(0.0f);
  }
  Gemm(false, false, 1.0f, w, moments.drift, 1.0f, moved);
  Matrix<float> result(w.rows, n);
  for (size_t r = 0; r < w.rows; ++r) std::copy_n(w.row(r), n, result.row(r));
  Gemm(false, false, static_cast<float>(strength), moved, inverse.matrix(), 1.0f, result);
  return result;
}

}  // namespace mica
