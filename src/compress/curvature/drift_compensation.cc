#include "compress/curvature/drift_compensation.h"

#include <algorithm>

#include "ops/linalg/linalg.h"

namespace mica {

Matrix<float> CompensateDrift(MatrixView<const float> w, const InputMoments& moments,
                              const DampedFactor& factor, double strength) {
  const size_t n = moments.h.rows;
  Matrix<float> moved(w.rows, n);
  if (moments.residual.data != nullptr) {
    for (size_t r = 0; r < w.rows; ++r) std::copy_n(moments.residual.row(r), n, moved.row(r));
  } else {
    moved.Fill(0.0f);
  }
  Gemm(false, false, 1.0f, w, moments.drift, 1.0f, moved);
  factor.MultiplyByInverse(moved);
  const auto share = static_cast<float>(strength);
  for (size_t r = 0; r < w.rows; ++r) {
    for (size_t c = 0; c < n; ++c) moved(r, c) = w(r, c) + share * moved(r, c);
  }
  return moved;
}

}  // namespace mica
