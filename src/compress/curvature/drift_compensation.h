// Weights that make up for how far the inputs of a matrix have moved.
#pragma once

#include "base/matrix.h"
#include "compress/calibrate/drift.h"
#include "compress/curvature/damped_factor.h"

namespace mica {

struct DriftSettings {
  double compensation =
      0.5;  // share of the drift that weights make up for, 0 to 1; 0 saves the pass of the original model
  size_t windows = 32;  // calibration windows on which it is measured
};

// w + strength (w drift + residual) H^-1, H the damped moments. With strength 1 these are the least-squares
// weights for r_original + W x_original given r and x: the matrix makes up for what its inputs and the stream
// beside it have lost (asymmetric calibration: Li et al., GPTAQ, 2504.02692, extended to the residual
// stream). A strength below 1 trusts the estimates less. w, out: [rows, cols] FP32, not
// overlapping, dense, on the device of the moments; factor: of moments.h. Each rank of the group works out some rows,
// all get all. The second one is for the processor.
void CompensateDrift(ConstTensor w, const InputMoments& moments, const DampedFactor& factor, double strength,
                     Tensor out, const Group& group);
Matrix<float> CompensateDrift(MatrixView<const float> w, const InputMoments& moments,
                              const DampedFactor& factor, double strength);

}  // namespace mica
