#include "compress/curvature/drift_compensation.h"

#include "device/array.h"
#include "ops/linalg/arrange.h"
#include "ops/linalg/linalg.h"

namespace mica {

void CompensateDrift(ConstTensor w, const InputMoments& moments, const DampedFactor& factor, double strength,
                     Tensor out) {
  if (moments.residual.data != nullptr) {
    Copy(moments.residual, out);
  } else {
    FillZero(out);
  }
  Gemm(false, false, 1.0f, w, moments.drift, 1.0f, out);
  factor.MultiplyByInverse(out);
  ScaleAndAdd(w, static_cast<float>(strength), out);
}

Matrix<float> CompensateDrift(MatrixView<const float> w, const InputMoments& moments,
                              const DampedFactor& factor, double strength) {
  Matrix<float> moved(w.rows, w.cols);
  CompensateDrift(w, moments, factor, strength, moved);
  return moved;
}

}  // namespace mica
