// Solving a matrix on a grid of blocks (format/blocks/block_grid.h): rounding, feedback, and refinement under
// the loss tr((W - Q) H (W - Q)^T), columns in their natural order. All tensors FP32 and, with the state, on
// one device; the result does not depend on the number of threads. A row's arithmetic is the same text on
// every device (row_arithmetic.h); devices differ by the rounding of sums in products.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "device/array.h"
#include "device/tensor.h"
#include "format/blocks/block_grid.h"

namespace mica {

// What is stored, transposed: a column (group, block) is contiguous.
struct BlockState {
  BlockGrid grid;
  size_t rows = 0, cols = 0;
  Array codes;    // [cols, rows] U8: level - level_low or the place in the table; of a codebook [cols /
                  // vector_cols, rows] U16
  Array signs;    // [cols / 8, rows] U8 of a codebook: bit k makes column k negative
  Array s, m;     // [cols / group_cols, rows] U8, where the grid has such integers
  Array d, dmin;  // [cols / block_cols, rows] U16: FP16 or BF16 bits; dmin where the grid has offsets

  BlockState() = default;
  // Everything uninitialised. Throws Error when cols is no multiple of the grid's block_cols, or of 8.
  BlockState(const BlockGrid& grid, size_t rows, size_t cols, Device device);
  Device device() const { return d.device(); }
};

// Whether rows of so many columns are whole blocks.
bool FitsBlocks(const BlockGrid& grid, size_t cols);

// Each weight to the nearest level, scales by least sum of importance (w - q)^2. by_column: [cols, rows];
// importance: [cols], >= 0; empty: 1 each.
void RoundBlocks(BlockState& state, ConstTensor by_column, const std::vector<float>& importance);

// Optimal-brain-surgeon feedback. d and dmin of a block and the integers of its groups are fitted when its
// first column is due, by rounding error weighted with 1 / U_jj^2; a group's integers (or its d where it is a
// block) again when it is reached, by the loss that its columns really leave, in search_rounds rounds (0: by
// weighted rounding error). u: [cols, cols] upper factor of H^-1; dead: columns without energy, which weigh
// nothing in fits. remaining: [cols, rows] W in, W less the feedback so far while it works; errors: [cols,
// rows] out, those of each column over U_jj. Returns the sum of squared errors.
double FeedBlocks(BlockState& state, ConstTensor u, const std::vector<uint32_t>& dead, int search_rounds,
                  Tensor remaining, Tensor errors);

// Lowers the loss tr((W - Q) H (W - Q)^T) by changing what FeedBlocks or RoundBlocks stored, `passes` times
// over all columns (fewer when a pass gains little): d and dmin of each block, the integers of each group,
// then each code. h: [cols, cols] damped, positive diagonal; gradient and steps: [cols, rows] for H (W - Q)
// and what a pass changes of Q; on entry steps holds W - Q, afterwards neither means anything. Returns the
// change of the loss (not positive).
double RefineBlocks(BlockState& state, ConstTensor h, int passes, Tensor gradient, Tensor steps);

// out [rows, cols] = what is stored, as a reader gets it.
void BlockValues(const BlockState& state, Tensor out);

// out [cols, rows] = W - Q (or W alone when `whole`); weights of the columns `dead` count as zero. w: [rows,
// cols].
void BlockResidual(const BlockState& state, ConstTensor w, const std::vector<uint32_t>& dead, bool whole,
                   Tensor out);

}  // namespace mica
