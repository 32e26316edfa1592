// Quantise one matrix to the uniform grid of a StepPlan, for entropy coding. Errors are absorbed by the
// columns not yet fixed, as in solver.h, and, where the second moments of the loss gradients are known,
// within a column by the rows not yet fixed: the loss tr(G (W - Q) H (W - Q)^T) is made small from both
// sides.
#pragma once

#include <vector>

#include "compress/inform/steps.h"
#include "device/array.h"
#include "device/group.h"
#include "device/tensor.h"
#include "format/entropy/entropy_matrix.h"
#include "ops/trellis/step_chooser.h"

namespace mica {

// Options of coding `entropy`.
struct EntropySettings {
  bool trellis = true;        // dependent quantisers along a trellis
  size_t trellis_window = 0;  // rows that the trellis decides together; 0: what suits the device (StepPrices)
  size_t trellis_ahead = 0;   // rows behind them that it looks at
  double lambda = 0.25;       // weight of bits against loss when an integer is chosen; 1 is the slope of the
                              // high-rate law, 0 rounds to the nearest
  bool row_feedback = true;   // errors are absorbed by later rows as well (needs Fisher windows)
};

struct StepReport {
  double loss = 0;  // sum over weights of e^2 / (a_i b_j)^2, e the error when it was fixed: tr(G (W - Q) H (W
                    // - Q)^T) with damped moments, times tr(H) tr(G) to the power kept out of the steps
  double relative_error = 0;  // sum of e^2 / U_jj^2 over the same sum for the weights when they were fixed:
                              // error left over energy
  double zero_share = 0;      // of the weights
  double rough_bits = 0;      // that the integers take, within a third or so
};

// One of the matrices that are solved together.
struct StepTask {
  ConstTensor w;  // [rows, cols]
  const StepPlan* plan;
  Tensor weights;  // out, [rows, cols] as a reader of the stored matrix gets them; not wanted when empty
};
struct StepSolution {
  EntropyMatrix matrix;  // without an entropy model of its integers; n is empty where they are on a device
  Array n;               // [rows, cols] of type I16, where they were found on a CUDA device; for any thread
  StepReport report;
};

// Row steps are c a_i, rounded to eighths of an octave. Runs where the weights are
// (ops/trellis/tile_solver.h); does not depend on threads. Each rank of the group solves some tiles of rows; all get
// weights and report, the integers only the one that leads.
std::vector<StepSolution> SolveSteps(const std::vector<StepTask>& tasks, double log2_c,
                                     const StepPrices& prices, const Group& group = Group::Alone());

}  // namespace mica
