// Solve one matrix on a grid of blocks, such as GGUF's types and the integers of compressed-tensors
// (format/blocks/block_grid.h): feedback over its columns in natural order, then refinement under the same
// loss (ops/blocks/blocks.h). The letters are those of compress/fixed/solver.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/matrix.h"
#include "compress/curvature/damped_factor.h"
#include "compress/fixed/solver.h"
#include "device/tensor.h"
#include "format/blocks/block_grid.h"
#include "format/gguf/types.h"
#include "ops/blocks/blocks.h"

namespace mica {

struct BlockSettings {
  int search_rounds = 3;  // rounds of the search for the integers of a group by the loss that the feedback
                          // really leaves; 0: by the weighted rounding error alone
  int refine_passes = 4;  // of coordinate descent over all columns after the feedback
  bool row_feedback = true;  // errors are absorbed by later rows as well (needs Fisher windows)
};

// How what the loss feels of the outputs passes errors on from row to row: G^-1 = V^T V (inform/steps.h).
struct RowFeedback {
  std::span<const uint32_t> order;  // [rows] position -> row
  ConstTensor v;                    // [rows, block] row p: V_pq for the positions q of p's block of outputs, FP32 on the device
                                    // that computes; empty: rows do not feed back
};

// A matrix that is solved, where it was solved; on a CUDA device the thread that solved calls Synchronize
// before it hands this on.
class BlockSolution {
 public:
  // Rows that were solved together: row r of the state is rows[r] of the matrix.
  struct Part {
    BlockState state;
    std::vector<uint32_t> rows;
  };

  BlockSolution() = default;
  explicit BlockSolution(BlockState state);
  explicit BlockSolution(std::vector<Part> parts);  // on one grid, all rows once
  const BlockGrid& grid() const { return parts_.at(0).state.grid; }
  size_t rows() const { return rows_; }
  BlockState TakeState() { return std::move(parts_.at(0).state); }  // of a solution of one part, which is gone then
  size_t cols() const { return parts_.at(0).state.cols; }

  // The blocks of all rows, one row after the other, as a GGUF tensor of this type holds them. The solution
  // must be on the type's grid.
  std::vector<std::byte> EncodedRows(GgmlType type) const;
  // Of a grid without a codebook. [rows, cols] level - level_low (integers of compressed-tensors in offset
  // binary), and [rows, blocks] bits of d.
  Matrix<uint8_t> Codes() const;
  Matrix<uint16_t> Scales() const;

 private:
  std::vector<Part> parts_;
  size_t rows_ = 0;
};

// w: [rows, cols]; h: [cols, cols], symmetric, both FP32 on the device that computes; factor: of h there, its
// order the natural one. Throws Error when w or h is not finite, when rows are no whole blocks, or when a
// setting is out of range. report may be null (zero_share is not counted); weights: out, [rows, cols] on the
// device, as a reader of what is stored gets them; not wanted when empty. Memory of the device: 4 bytes x
// (cols^2 + 3 rows cols) besides the arguments and the result.
BlockSolution SolveOnBlocks(ConstTensor w, ConstTensor h, const DampedFactor& factor, const BlockGrid& grid,
                            const BlockSettings& settings, SolverReport* report, Tensor weights = {});
// The same under tr(G (W - Q) H (W - Q)^T): up to 16 stripes of rows one after the other, of each block of outputs an
// equal part; what a stripe leaves moves what those after it aim at. On a CUDA device matrices of more than 4 million
// weights are one stripe. Losses are reported without G, from what was aimed at. Memory: 8 bytes x rows cols more.
// Whether there is more than one.
bool FeedsRows(Device device, size_t rows, size_t cols);
BlockSolution SolveOnBlocks(ConstTensor w, ConstTensor h, const DampedFactor& factor, const RowFeedback& rows,
                            const BlockGrid& grid, const BlockSettings& settings, SolverReport* report,
                            Tensor weights = {});

// Rounding without second moments (embeddings, output head). importance: [cols] of squared errors, such as
// the energies of inputs; empty: all alike.
BlockSolution RoundOnBlocks(ConstTensor w, const std::vector<float>& importance, const BlockGrid& grid,
                            Tensor weights = {});

}  // namespace mica
