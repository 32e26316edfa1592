// Quantise one matrix to a uniform grid whose steps follow from information, for entropy coding: column j of
// row i has the step c U_jj / sqrt(f_i), where U is the upper Cholesky factor of H^-1 in processing order
// (1/U_jj^2 = Var(x_j | columns still free) = H_jj exp(-2 I_j)) and f_i the Fisher information of output i.
// Errors are absorbed by the columns not yet fixed, as in solver.h. Integers are rounded, or chosen along a
// trellis of dependent quantisers by loss + lambda bits (8 states, as in video coding: Schwarz et al.,
// "Hybrid video coding with trellis-coded quantization", DCC 2019).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "io/entropy_matrix.h"

namespace mica {

struct StepSettings {
  double damping = 0.01;        // times the mean diagonal of H
  double fisher_damping = 1.0;  // times the mean of f, added to every row's
  bool trellis = false;
  double lambda = 0.0;      // weight of bits against loss; 1 is the slope of the high-rate law
  double zero_price = 0.0;  // loss that a weight which is not zero must save, in squared steps: drives
                            // sparsity beyond what the rate gives
};

// What does not depend on c.
struct StepPlan {
  std::vector<uint32_t> order;  // [cols] processing position -> original column: rising conditional variance
                                // (falling [H^-1]_jj)
  Matrix<float> u;              // [cols, cols] upper factor of H^-1, processing order
  std::vector<float> row_log;   // [rows] log2 of 1/sqrt(f_i)
  std::vector<int16_t> col_step;  // [cols] log2 of U_jj in eighths, original order
  size_t dead_channels = 0;       // columns whose input was always zero
  int damping_doublings = 0;      // times the damping had to be raised before H was positive definite
};
// h: [cols, cols]; fisher: [rows], >= 0. Throws Error when h is not finite or not positive definite at any
// damping.
StepPlan PlanSteps(MatrixView<const float> h, const std::vector<double>& fisher,
                   const StepSettings& settings);

// log2 of the RMS of w / step at c = 1, rows and columns apart: row[i] + col[j] is what entry (i, j) is
// expected to be.
struct StepSizes {
  std::vector<float> row;  // [rows]
  std::vector<float> col;  // [cols]
};
StepSizes MeasureSizes(MatrixView<const float> w, const StepPlan& plan);

struct StepReport {
  double loss = 0;            // sum over weights of f_i e^2 / U_jj^2
  double relative_error = 0;  // sum of e^2 / U_jj^2 over the same sum for the weights when they were fixed:
                              // error left over energy
  double zero_share = 0;      // of the weights
};

// Row steps are c / sqrt(f_i), rounded to eighths of an octave. The entropy model of the result is not fitted
// yet. Threads over tiles of rows; independent of their number.
EntropyMatrix SolveSteps(MatrixView<const float> w, const StepPlan& plan, double log2_c,
                         const StepSettings& settings, StepReport* report);

}  // namespace mica
