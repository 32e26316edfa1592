// The feedback solver as a scalar loop over columns, in FP32 or FP64: the oracle of SolveFixed. No blocks, no
// threads, no refinement; everything else (order, masks, grids, search) as documented in solver.h.
#pragma once

#include "compress/solver.h"

namespace mica {

struct ReferenceResult {
  FixedMatrix matrix;
  double predicted_loss = 0;  // sum of e^2 / U_jj^2
  double measured_loss = 0;   // tr((W - Q) H (W - Q)^T) with the undamped H, summed in T
};

// As SolveFixed with refine_passes 0. T: float or double, the type of H, U and the running weights (grids
// stay the stored scales). H with the damping of the settings must be positive definite; throws Error
// otherwise.
template <typename T>
ReferenceResult SolveReference(MatrixView<const float> w, MatrixView<const float> h,
                               const std::vector<uint8_t>& widths, const FixedSettings& settings);

}  // namespace mica
