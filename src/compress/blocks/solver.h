// Solve one matrix on a grid of blocks, such as GGUF's types and the integers of compressed-tensors
// (format/blocks/block_grid.h): feedback over its columns in natural order, then refinement under the same
// loss (ops/blocks/blocks.h). The letters are those of compress/fixed/solver.h.
#pragma once

#include <cstddef>
#include <cstdint>
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
};

// A matrix that is solved, where it was solved; on a CUDA device the thread that solved calls Synchronize
// before it hands this on.
class BlockSolution {
 public:
  BlockSolution() = default;
  explicit BlockSolution(BlockState state) : state_(std::move(state)) {}
  const BlockState& state() const { return state_; }
  const BlockGrid& grid() const { return state_.grid; }
  size_t rows() const { return state_.rows; }
  size_t cols() const { return state_.cols; }

  // The blocks of all rows, one row after the other, as a GGUF tensor of this type holds them. The solution
  // must be on the type's grid.
  std::vector<std::byte> EncodedRows(GgmlType type) const;
  // Of a grid without a codebook. [rows, cols] level - level_low (integers of compressed-tensors in offset
  // binary), and [rows, blocks] bits of d.
  Matrix<uint8_t> Codes() const;
  Matrix<uint16_t> Scales() const;

 private:
  BlockState state_;
};

// w: [rows, cols]; h: [cols, cols], symmetric, both FP32 on the device that computes; factor: of h there, its
// order the natural one. Throws Error when w or h is not finite, when rows are no whole blocks, or when a
// setting is out of range. report may be null (zero_share is not counted); weights: out, [rows, cols] on the
// device, as a reader of what is stored gets them; not wanted when empty. Memory of the device: 4 bytes x
// (cols^2 + 3 rows cols) besides the arguments and the result.
BlockSolution SolveOnBlocks(ConstTensor w, ConstTensor h, const DampedFactor& factor, const BlockGrid& grid,
                            const BlockSettings& settings, SolverReport* report, Tensor weights = {});

// Rounding without second moments (embeddings, output head). importance: [cols] of squared errors, such as
// the energies of inputs; empty: all alike.
BlockSolution RoundOnBlocks(ConstTensor w, const std::vector<float>& importance, const BlockGrid& grid,
                            Tensor weights = {});

}  // namespace mica
