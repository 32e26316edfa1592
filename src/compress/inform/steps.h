// Steps of a uniform grid by information, before any weight is rounded: column j of row i has the step
// c a_i b_j. U is the upper Cholesky factor of H^-1 in processing order and b_j = U_jj, so that 1 / b_j^2 =
// Var(x_j | columns still free) = H_jj exp(-2 I_j). The rows have the same law: V is the factor of G^-1, G =
// E[g g^T] the second moments of the loss gradients at the outputs, and a_i = V_ii; without G, a_i = 1 /
// sqrt(f_i) with the Fisher information f_i of the output alone. Every rounding error then costs the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/matrix.h"
#include "compress/curvature/damped_factor.h"
#include "compress/curvature/output_information.h"
#include "device/tensor.h"

namespace mica {

struct StepSettings {
  double fisher_damping = 1.0;  // without G: times the mean of f, added to every row's
  double output_damping = 0.1;  // with G: times its mean diagonal, added to it
};

// What follows from one input, for all matrices that take it.
struct ColumnSteps {
  std::shared_ptr<const DampedFactor> factor;  // in processing order
  std::vector<int16_t> col_step;               // [cols] log2 of U_jj in eighths, original order

  const std::vector<uint32_t>& order() const {
    return factor->order();
  }  // [cols] processing position -> column
  MatrixView<const float> u() const { return factor->u(); }
};
ColumnSteps PlanColumns(std::shared_ptr<const DampedFactor> factor);

// The order in which columns are processed: rising conditional variance 1 / [H^-1]_jj, in units of the
// weights that use the channel, so that the scale of a channel plays no part. use: [cols] their energy.
std::vector<uint32_t> ProcessingOrder(const std::vector<double>& inverse_diagonal,
                                      const std::vector<double>& use);

// What does not depend on c. Rows: [rows] position -> original row. Within each block of G by rising G_ii, in
// half octaves (row_key, stored where a decoder must follow the same order); all in their own order without
// G.
struct StepPlan {
  std::shared_ptr<const ColumnSteps> columns;
  std::vector<uint32_t> row_order;
  std::vector<int16_t> row_key;  // [rows] by original row; empty without G
  Matrix<float> v;             // [rows, block] row p: V_pq for the positions q of p's block; empty without G
  std::vector<float> row_log;  // [rows] log2 of a_i, original order
};
// All but the columns, on which nothing else depends. signal: what the matrix's outputs weigh in the loss, sum of
// f_r w_rc^2 H_cc; 0 where that is not known. Throws Error when the moments of `outputs` are not finite or not positive
// definite at any damping.
StepPlan PlanRowSteps(const OutputInformation& outputs, double signal, const StepSettings& settings);
// The same plan of a signal of 0 becomes that of `signal`.
void WeighBySignal(double signal, StepPlan& plan);

// log2 of the RMS of w / step at c = 1, rows and columns apart: row[i] + col[j] is what entry (i, j) is
// expected to be.
struct StepSizes {
  std::vector<float> row;  // [rows]
  std::vector<float> col;  // [cols]
};
// w: FP32 on any device. Throws Error when values are not finite.
StepSizes MeasureSizes(ConstTensor w, const StepPlan& plan);

// log2 to eighths of an octave.
int StepEighths(double log2_value);

}  // namespace mica
