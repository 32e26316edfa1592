// What stands around the stages of the solver: from weights to the state that they work on, and from there to
// what is stored and what is known of it. Tensors of a call are FP32 on one device unless it says otherwise.
#pragma once

#include <cstdint>
#include <vector>

#include "device/tensor.h"
#include "ops/feedback/solver_state.h"

namespace mica {

// The largest |w|; 0 of no values.
float LargestMagnitude(ConstTensor w);

// out[r, c] = m[r, c] * col[c] * row[r]; row empty: 1 each. They may be the same.
void ScaleRowsAndColumns(ConstTensor m, const std::vector<float>& row, const std::vector<float>& col,
                         Tensor out);

// [rows] sum_c a[r, c] b[r, c] in FP64, in a fixed order.
std::vector<double> RowProducts(ConstTensor a, ConstTensor b);

// tr(d^T H d) in FP64 of sums of FP32. h: [cols, cols], symmetric; d: [cols, rows]. On a CUDA device the sums
// have a relative error of 1e-5.
double QuadraticLoss(ConstTensor h, ConstTensor d);

// out [cols, rows] = W - Q (or W alone when `whole`) in stored order and in units of 2^state.exponent;
// weights at the positions `dead` count as zero. w: [rows, cols] in the original order of columns.
void Residual(const SolverState& state, ConstTensor w, const std::vector<uint32_t>& dead, bool whole,
              Tensor out);

// out [rows, cols], original order = what is stored, as a reader gets it.
void StoredWeights(const SolverState& state, Tensor out);

// Weights that decode to zero.
uint64_t CountZeros(const SolverState& state);

// by_row [rows, cols] = the transpose of by_column [cols, rows], U8 or U16 both: codes and masks as a
// FixedMatrix has them. by_row lies on the processor, whatever the other's device.
void IntegersByRow(ConstTensor by_column, Tensor by_row);

}  // namespace mica
