// What the stages of the solver (feedback, refinement) work on, all in stored order and transposed: a column
// is contiguous, so a tile of rows (ops/feedback/feedback.h) is cut out by copying kTileRows values of each
// column.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/half.h"
#include "base/matrix.h"
#include "format/mask/sparsity_pattern.h"
#include "ops/feedback/column_plan.h"
#include "ops/feedback/feedback.h"
#include "ops/grid/grid.h"

namespace mica {

struct SolverState {
  ColumnPlan plan;
  size_t rows = 0;
  size_t cols = 0;
  int exponent = 0;          // weights below are in units of 2^exponent
  Matrix<uint16_t> codes;    // [cols, rows] as FixedMatrix::codes
  Matrix<uint8_t> keep;      // [cols, rows], empty without a mask
  Matrix<ScaleCode> scales;  // [scale groups, rows]
  Matrix<uint8_t> zeros;     // [scale groups, rows]

  bool masked() const { return plan.mask != MaskKind::kNone; }
  size_t tiles() const { return (rows + kTileRows - 1) / kTileRows; }
  size_t tile_rows(size_t tile) const { return std::min(kTileRows, rows - tile * kTileRows); }

  // Columns [first, first + cols) of a tile's rows: buffer [cols, kTileRows], missing rows zero.
  template <typename T>
  void LoadTile(const Matrix<T>& from, size_t tile, size_t first, size_t cols, T* buffer) const {
    const size_t count = tile_rows(tile);
    for (size_t j = 0; j < cols; ++j) {
      std::copy_n(from.row(first + j) + tile * kTileRows, count, buffer + j * kTileRows);
      std::fill_n(buffer + j * kTileRows + count, kTileRows - count, T{});
    }
  }
  template <typename T>
  void StoreTile(const T* buffer, size_t tile, size_t first, size_t cols, Matrix<T>& to) const {
    for (size_t j = 0; j < cols; ++j) {
      std::copy_n(buffer + j * kTileRows, tile_rows(tile), to.row(first + j) + tile * kTileRows);
    }
  }

  // Grids of a tile's rows in scale group `group`; missing rows have scale 1.
  void LoadGrids(size_t tile, const ScaleGroup& group, TileGrids* grids) const {
    for (size_t r = 0; r < kTileRows; ++r) {
      Grid grid{ToScaleCode(1.0f), 0};
      if (r < tile_rows(tile)) {
        const auto row = static_cast<size_t>(group.scale_row);
        grid = {scales(row, tile * kTileRows + r), zeros(row, tile * kTileRows + r)};
      }
      grids->Set(r, grid);
    }
  }
  void StoreGrids(const TileGrids& grids, size_t tile, const ScaleGroup& group) {
    for (size_t r = 0; r < tile_rows(tile); ++r) {
      const auto row = static_cast<size_t>(group.scale_row);
      scales(row, tile * kTileRows + r) = grids.grid[r].scale;
      zeros(row, tile * kTileRows + r) = grids.grid[r].zero;
    }
  }
};

// What the feedback is told besides the plan.
struct FeedbackSettings {
  std::vector<float> saliency;  // [cols] by stored position: what a squared weight is multiplied with to give
                                // its pruning score
  std::vector<float>
      row_importance;     // [rows] multiplied with that score in unstructured masks; empty: 1 each
  int search_rounds = 3;  // of the search for a group's grid by the loss that the feedback really leaves; 0:
                          // by the weighted rounding error alone
};

// Prunes and quantises all columns with feedback. u: [cols, cols] upper factor of H^-1. remaining: [cols,
// rows] W in, W less the feedback so far while it works; errors: [cols, rows] out, those of each column over
// U_jj. Fills codes, keep, scales, zeros; returns sum of e^2.
double FeedAll(SolverState& state, MatrixView<const float> u, const FeedbackSettings& settings,
               Matrix<float>& remaining, Matrix<float>& errors);

// Lowers the loss tr((W - Q) H (W - Q)^T) by changing what FeedAll stored; zeros per row and block, and n:m
// patterns, stay as many. h: [cols, cols] damped; residual: [cols, rows] W - Q as FeedAll left it; gradient
// and steps: [cols, rows] for H (W - Q), kept up to date, and for what a pass changes of Q; steps may be
// residual itself, which is read first. Returns the change of the loss (not positive).
double RefineAll(SolverState& state, MatrixView<const float> h, int passes, const Matrix<float>& residual,
                 Matrix<float>& gradient, Matrix<float>& steps);

}  // namespace mica
