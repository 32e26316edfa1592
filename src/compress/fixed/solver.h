// Prune and quantise one matrix column by column, each error absorbed by the columns not yet fixed (optimal
// brain surgeon; Frantar & Alistarh, SparseGPT 2301.00774 and GPTQ 2210.17323), then refine codes, masks and
// scales under the same loss. The papers' letters: W weights, H second moments of the inputs, U upper
// Cholesky factor of H^-1 (H^-1 = U^T U), Q what is stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/matrix.h"
#include "compress/budget/demands.h"
#include "compress/budget/sparsity_plan.h"
#include "compress/curvature/damped_factor.h"
#include "device/tensor.h"
#include "format/fixed/fixed_matrix.h"
#include "format/mask/sparsity_pattern.h"
#include "format/packed_matrix.h"
#include "ops/feedback/solver_state.h"

namespace mica {

// Options of coding `fixed`.
struct FixedSettings {
  std::vector<uint8_t> bit_options = {2, 3, 4, 6, 8};  // widths to choose from
  size_t group_size = 128;                             // columns that share a scale
  SensitivitySettings sensitivity;
  double saliency_exponent = 1.0;  // a in the pruning score w^2 H_jj exp(-2 a I_j): 0 Wanda, 1 SparseGPT
  int refine_passes = 4;           // of coordinate descent after the feedback; 0: plain GPTQ
};

struct FixedSolverSettings {
  size_t group_size = 128;
  SparsityPattern sparsity;
  // [cols] by original column: the share of its weights that an unstructured mask should prune; empty:
  // sparsity.rate of each. What a column of width 0 loses on top, its block loses less.
  std::vector<double> pruned_shares;
  // [rows] a squared weight of the row is multiplied with, to give its pruning score; empty: all alike.
  std::vector<float> row_importance;
  // [cols] by original column: powers of two that are taken out of the columns' weights and stored beside
  // them, for columns that cannot share a scale with others; empty: none.
  std::vector<int8_t> col_exponents;
  // The matrix's power of two, where it is part of a larger one; none: what suits its weights.
  std::optional<int> exponent;
  double saliency_exponent = 1.0;  // a in the pruning score w^2 H_jj exp(-2 a I_j): 0 Wanda, 1 SparseGPT
  int search_rounds = 3;  // rounds of the search for a group's scale and zero by the loss that the feedback
                          // really leaves; 0: by the weighted rounding error alone
  int refine_passes =
      4;  // passes of coordinate descent over all columns after the feedback; 0: plain GPTQ / SparseGPT
};

struct SolverReport {
  double feedback_loss =
      0;  // sum of e^2 / U_jj^2, e the error of each weight when it was fixed: the loss before refinement
  double predicted_loss = 0;  // the same plus the change of the loss by each step of refinement: tr((W - Q) H
                              // (W - Q)^T), damped H
  double measured_loss = 0;   // tr((W - Q) H (W - Q)^T) with the undamped H, measured on what was stored
  double relative_error = 0;  // measured_loss / tr(W H W^T)
  double zero_share = 0;      // share of weights that decode to zero
  size_t dead_channels = 0;   // columns whose input was always zero; their weights are set to zero
  double damping = 0;         // share of its energy that was added to each channel's
  int damping_doublings = 0;  // times the damping had to be raised before H was positive definite
};

// A matrix that is solved, where it was solved. It is packed, or brought to the processor, when that is asked
// for, so that another thread can do it beside the next matrix: on a CUDA device the one that solved calls
// Synchronize before it hands this on.
class FixedSolution {
 public:
  FixedSolution() = default;
  // col_exponents: by stored position.
  FixedSolution(SolverState state, size_t group_size, std::vector<int8_t> col_exponents)
      : state_(std::move(state)), group_size_(group_size), col_exponents_(std::move(col_exponents)) {}
  size_t rows() const { return state_.rows; }
  size_t cols() const { return state_.cols; }
  const std::vector<uint8_t>& widths() const { return state_.plan.widths; }  // by stored position
  // What Pack makes of it; on a CUDA device nothing but the streams leaves it.
  PackedMatrix Packed() const;
  // The matrix; nothing of it is left here or on the device.
  FixedMatrix Take();

 private:
  FixedFrame Frame() const;

  SolverState state_;
  size_t group_size_ = 0;
  std::vector<int8_t> col_exponents_;
};

// w: [rows, cols]; h: [cols, cols], symmetric, both FP32 on the device that computes; factor: of h on the
// same device, in the order of columns that is wanted; widths: [cols] by original column. Stored order:
// widths descending, within a width as the factor has them (MakePlan); where that is another order, h is
// factored once more. Unstructured masks share one threshold over the rows of each block of 128 columns; the
// number of zeros of every width is exact (PrunedBefore). Threads over rows; the result does not depend on
// the number of threads. Throws Error when w or h is not finite, or when a setting is out of range. report
// may be null. weights: out, [rows, cols] on the device, as a reader of the stored matrix gets them; not
// wanted when empty. Memory of the device: 4 bytes x (cols^2 + 3 rows cols) besides the arguments and the
// result; a CUDA device takes 8 bytes x (cols^2 + rows cols) more, for products on tensor cores.
FixedSolution SolveFixedThere(ConstTensor w, ConstTensor h, const DampedFactor& factor,
                              const std::vector<uint8_t>& widths, const FixedSolverSettings& settings,
                              SolverReport* report, Tensor weights = {});
// The same, and the matrix at once.
FixedMatrix SolveFixed(ConstTensor w, ConstTensor h, const DampedFactor& factor,
                       const std::vector<uint8_t>& widths, const FixedSolverSettings& settings,
                       SolverReport* report, Tensor weights = {});

// The same for a matrix of many rows, such as those of a vocabulary: of `block_rows` rows at a time, so that
// the memory of the device depends on no more. Packed; the bytes do not depend on block_rows but for the
// rounding of sums in products. report: its losses are sums over the blocks. No masks.
PackedMatrix SolveFixedInBlocks(ConstTensor w, ConstTensor h, const DampedFactor& factor,
                                const std::vector<uint8_t>& widths, const FixedSolverSettings& settings,
                                size_t block_rows, SolverReport* report);

// Round to nearest without calibration: one width, identity order. bits: 2, 3, 4,
// 6, 8 or 16. Threads over rows.
FixedMatrix RoundToNearest(MatrixView<const float> w, int bits, size_t group_size);

}  // namespace mica
