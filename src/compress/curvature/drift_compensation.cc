#include "compress/curvature/drift_compensation.h"

#include <algorithm>

#include "base/error.h"
#include "ops/linalg/linalg.h"

namespace mica {

Matrix<float> CompensateDrift(MatrixView<const float> w, const InputMoments& moments, double strength,
                              double damping) {
  const MatrixView<const float> h = moments.h;
  const size_t n = h.rows;
  double trace = 0;
  for (size_t j = 0; j < n; ++j) trace += h(j, j);
  Matrix<float> inverse(n, n);
  for (int attempt = 0;; ++attempt) {
    for (size_t i = 0; i < n; ++i) std::copy_n(h.row(i), n, inverse.row(i));
    const float added = static_cast<float>(damping * trace / static_cast<double>(n));
    for (size_t j = 0; j < n; ++j)
      inverse(j, j) +=
          h(j, j) > 0 ? added : static_cast<float>(trace > 0 ? trace / static_cast<double>(n) : 1.0);
    if (InvertPositiveDefinite(inverse)) break;
    if (attempt == 20)
      Fail(
          "second moments of {} input channels are not positive definite at any damping; calibrate on other "
          "text",
          n);
    damping = std::max(2 * damping, 1e-4);
  }
  Matrix<float> moved(w.rows, n);
  if (moments.residual.data != nullptr) {
    for (size_t r = 0; r < w.rows; ++r) std::copy_n(moments.residual.row(r), n, moved.row(r));
  } else {
    moved.Fill(0.0f);
  }
  Gemm(false, false, 1.0f, w, moments.drift, 1.0f, moved);
  Matrix<float> result(w.rows, n);
  for (size_t r = 0; r < w.rows; ++r) std::copy_n(w.row(r), n, result.row(r));
  Gemm(false, false, static_cast<float>(strength), moved, inverse, 1.0f, result);
  return result;
}

}  // namespace mica
