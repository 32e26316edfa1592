// The inner loops of the column-by-column solver, on tiles of kTileRows rows stored column after column (row
// fastest), so that a vector register holds one column of several rows and every row follows its own grid and
// mask.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace mica {

// Rows of a tile: two AVX-512 registers, whose dependent chains overlap; 128 columns of it (16 KiB) stay in
// the L1 cache.
inline constexpr size_t kTileRows = 32;

// What a column may hold: nothing (bits 0), FP16 values (16) or the grid (code - zero) * scale with codes
// below 2^bits. A weight whose keep is 0 becomes 0. Arrays are [kTileRows]; `keep` is [cols, kTileRows] or
// null (all kept).
struct TileGrid {
  int bits = 0;
  const float* scale = nullptr;  // positive; with zero unused for bits 0 and 16
  const float* zero = nullptr;
  const uint8_t* keep = nullptr;
};

// error[r] = sum_j importance[j] * (w[j, r] - quantised(w[j, r]))^2 over kept weights of columns [0, cols).
// bits: 2 .. 8.
void GridErrors(const float* w, size_t cols, const TileGrid& grid, const float* importance, float* error);

// One run of columns that share a grid.
struct ColumnRun {
  size_t cols = 0;         // columns to fix: 0 .. cols - 1 of the tile
  size_t update_cols = 0;  // columns of the tile that take their errors, >= cols
  const float* factor =
      nullptr;  // [cols, update_cols] by `stride`: U (feedback) or H (refinement) from the first column on
  size_t stride = 0;
  const float* reciprocal = nullptr;  // [cols] 1 / factor[j, j]
  TileGrid grid;
  float* change = nullptr;  // out, [cols, kTileRows]
  uint16_t* codes =
      nullptr;  // out, [cols, kTileRows]: codes, FP16 bits where bits is 16, 0 where pruned; null: not wanted
  float* loss = nullptr;  // [kTileRows], added to
};

// Optimal-brain-surgeon feedback. For each column j in order: q = quantised(w_j), change_j = e = (w_j - q) /
// U_jj, w_k -= e U_jk for columns k > j below update_cols, loss += e^2. w: [update_cols, kTileRows], in and
// out (columns that are fixed keep what was quantised).
void FeedColumns(const ColumnRun& run, float* w);

// Coordinate descent on the loss d^T H d, d = w - q, with g = H d. For each column j in order: q' =
// quantised(q_j + g_j / H_jj), the best value of that column with the others fixed; change_j = q' - q_j; g_k
// -= H_jk change_j for k > j below update_cols; loss += the change of the loss, -2 g_j change_j + H_jj
// change_j^2. q: [cols, kTileRows] in and out; g: [update_cols, kTileRows] in and out.
void DescendColumns(const ColumnRun& run, float* q, float* g);

// The functions as compiled for each instruction set of this machine, the slowest first (tests).
struct FeedbackKernels {
  const char* target;
  void (*grid_errors)(const float* w, size_t cols, const TileGrid& grid, const float* importance,
                      float* error);
  void (*feed_columns)(const ColumnRun& run, float* w);
  void (*descend_columns)(const ColumnRun& run, float* q, float* g);
};
std::vector<FeedbackKernels> FeedbackKernelsOfAllTargets();

}  // namespace mica
