// Prune and quantise one matrix column by column, each error absorbed by the columns not yet fixed (optimal
// brain surgeon; Frantar & Alistarh, SparseGPT 2301.00774 and GPTQ 2210.17323). The paper's letters: W
// weights, H second moments, U upper Cholesky factor of H^-1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "io/packed_matrix.h"

namespace mica {

struct SparsityPattern {
  double rate = 0;   // share of weights set to zero, [0, 1); unstructured when n is 0
  int n = 0, m = 0;  // n:m: n kept in each m consecutive stored columns (2:4, 4:8)
};

struct FixedSettings {
  size_t group_size = 128;
  double damping = 0.01;  // times the mean diagonal of H
  SparsityPattern sparsity;
  double saliency_exponent = 1.0;  // a in the pruning score w^2 H_jj exp(-2 a I_j): 0 Wanda, 1 SparseGPT
};

struct SolverReport {
  double predicted_loss = 0;  // sum of e^2 / U_jj^2 over all weights: tr((W - Q) H (W - Q)^T) at zero damping
  double measured_loss = 0;   // tr((W - Q) H (W - Q)^T) with the undamped H
  double relative_error = 0;  // measured_loss / tr(W H W^T)
  double zero_share = 0;      // share of weights that decode to zero
  size_t dead_channels = 0;   // columns whose input was always zero; their weights are set to zero
  int damping_doublings = 0;  // times the damping had to be doubled before H was positive definite
};

// w: [rows, cols]; h: [cols, cols]; widths: [cols] by original column. Stored order: widths descending,
// within a width by falling H_jj (activation order). Threads over rows; blocked; the result does not depend
// on the number of threads. Throws Error when H is not finite.
FixedMatrix SolveFixed(MatrixView<const float> w, MatrixView<const float> h,
                       const std::vector<uint8_t>& widths, const FixedSettings& settings,
                       SolverReport* report);

// Round to nearest without calibration (embeddings, output head): one width, identity order.
FixedMatrix RoundToNearest(MatrixView<const float> w, int bits, size_t group_size);

}  // namespace mica
