// Quantise one matrix to a uniform grid whose steps follow from information, for entropy coding: column j of
// row i has the step c U_jj / sqrt(f_i), where U is the upper Cholesky factor of H^-1 in processing order
// (1/U_jj^2 = Var(x_j | columns still free) = H_jj exp(-2 I_j)) and f_i the Fisher information of output i.
// Errors are absorbed by the columns not yet fixed, as in solver.h, and integers are chosen by loss + lambda
// bits, along a trellis of dependent quantisers when asked (8 states, as in video coding: Schwarz et al.,
// "Hybrid video coding with trellis-coded quantization", DCC 2019).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix.h"

namespace mica {

// Contexts of the entropy model: the quantiser in use (0, or 1 in half of the trellis states) and the class
// of the weight's expected size.
inline constexpr size_t kQuantisers = 2;
inline constexpr size_t kClasses = 64;     // quarter octaves of sigma / step
inline constexpr size_t kMagnitudes = 32;  // |n| of 31 and more share the last entry
// bits[q][k][m]: what coding |n| = m in that context costs, sign included; the last entry is that of the
// escape itself.
using RateTables = std::array<std::array<std::array<float, kMagnitudes>, kClasses>, kQuantisers>;
using Histogram = std::array<std::array<std::array<uint64_t, kMagnitudes>, kClasses>, kQuantisers>;

// Rows that share a run of the trellis: the state of every column is 0 at the top of each tile of rows.
inline constexpr size_t kTrellisRows = 128;
inline constexpr size_t kTrellisStates = 8;
// Next state by parity of |n|, and the quantiser of each state. Level of n: n == 0 ? 0 : sign(n) (2 |n| - q),
// in steps.
inline constexpr uint8_t kTrellisNext[kTrellisStates][2] = {{0, 2}, {5, 7}, {1, 3}, {6, 4},
                                                            {2, 0}, {4, 6}, {3, 1}, {7, 5}};
inline constexpr uint8_t kTrellisQuantiser[kTrellisStates] = {0, 1, 0, 1, 0, 1, 0, 1};

struct StepSettings {
  double damping = 0.01;         // times the mean diagonal of H
  double fisher_damping = 0.05;  // times the mean of f, added to every row's
  bool trellis = true;
  double lambda = 1.0;  // weight of bits against loss, 1: the slope of the high-rate law
  double zero_reward =
      0.0;  // loss a zero is forgiven, in squared steps: what drives sparsity beyond what the rate gives
};

// What does not depend on c: made once a matrix.
struct StepPlan {
  std::vector<uint32_t> order;            // [cols] processing position -> original column, falling H_jj
  Matrix<float> u;                        // [cols, cols] upper factor of H^-1, processing order
  std::vector<int16_t> row_step;          // [rows] log2 of 1/sqrt(f_i) in eighths
  std::vector<int16_t> col_step;          // [cols] log2 of U_jj in eighths, original order
  std::vector<float> row_size, col_size;  // log2 of the RMS of weights in units of these steps: size(i) +
                                          // size(j) is the expected log2 of sigma / step at c = 1
  size_t dead_channels = 0;
  int damping_doublings = 0;
};
// w: [rows, cols]; h: [cols, cols]; fisher: [rows], >= 0. Throws Error when values are not finite.
StepPlan PlanSteps(MatrixView<const float> w, MatrixView<const float> h, const std::vector<double>& fisher,
                   const StepSettings& settings);

struct StepSolution {
  Matrix<int16_t> n;              // [rows, cols], original column order
  std::vector<int16_t> row_step;  // [rows] eighths of log2, the scale c included
  std::vector<int16_t> col_step;  // [cols]
  std::vector<int8_t> row_class;  // [rows] class of a weight: clamp(row_class + col_class, 0, kClasses - 1)
  std::vector<int8_t> col_class;  // [cols]
  Histogram histogram = {};       // counts by context
  double escape_bits = 0;         // bits of magnitudes beyond the table
  double loss = 0;  // sum over weights of f_i e^2 / U_jj^2: the increase of the loss the plan predicts (twice
                    // the nats per token)
  double zero_share = 0;
  bool trellis = false;
};

// c = 2^(log2_c8 / 8). tables: what the integers will cost. Threads over tiles of rows; the result does not
// depend on their number.
StepSolution SolveSteps(MatrixView<const float> w, const StepPlan& plan, int log2_c8,
                        const RateTables& tables, const StepSettings& settings);

// weights [rows, cols] of a solution, as a decoder computes them: level * 2^((row_step + col_step) / 8).
void DecodeSteps(const StepSolution& solution, MatrixView<float> out);

// Tables of a generalised Gaussian (shape 1.3) of the class's sigma, before anything is counted.
RateTables InitialTables(bool trellis);
// Tables that the counts give (12-bit frequencies), smoothed with `prior` where counts are few.
RateTables TablesFromCounts(const Histogram& counts, const RateTables& prior);

}  // namespace mica
