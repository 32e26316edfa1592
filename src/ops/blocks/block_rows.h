// What the rows of a matrix are told to do with one chunk of columns: the interface between the order of the
// work (blocks.cc), which is the same on every device, and the arithmetic of a row (row_arithmetic.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "device/device.h"

namespace mica {

// Columns of a chunk: at most kBlocksTogether of blocks that are smaller than that, one block of up to
// kLargestBlock, or a part of a larger one.
inline constexpr int kBlocksTogether = 128;
inline constexpr int kLargestBlock = 256;
inline constexpr int kLargestGroups = 16;  // groups of a block

// BlockGrid as the arithmetic takes it.
struct RowGrid {
  int block_cols, group_cols, groups;
  bool table;
  float level_low, level_high;               // uniform; the first and the last of a table
  float levels[16], middles[16];             // of a table: levels, and half way to the next
  float scale_base, scale_step, scale_high;  // factor of d: base + step s, s to scale_high
  float offset_high;
  bool integers, offset, signed_offset, negative_scale, bf16;
  // Of a codebook.
  int vector_cols, level_count;
  bool even_signs;
  float magnitudes[8];
};

// A codebook in halves of its vectors: rising by the second half, of which there are `runs`, so that a run
// has one second half.
inline constexpr int kLargestVectors = 1024, kLargestRuns = 256, kLargestLows = 81;
struct CodebookTables {
  int vectors, runs, lows;
  alignas(16) float high_levels[kLargestRuns][4];
  int run_start[kLargestRuns + 1];
  alignas(16) float low_levels[kLargestLows][4];  // all first halves that occur
  uint8_t low_of[kLargestVectors], run_of[kLargestVectors];
};

enum class RowStage {
  kFit,       // d, dmin, s and m of a block by weighted rounding error
  kRound,     // the same, and the nearest codes
  kFeed,      // feedback
  kRefine,    // descent
  kValues,    // w = values
  kResidual,  // w -= values
};

// Pointers are at the chunk's first column (group, block). What belongs to rows is `stride` values apart from
// column to column (group to group, block to block), neighbouring rows side by side.
struct RowJob {
  RowStage stage;
  RowGrid grid;
  int cols;  // of the chunk
  bool fit;  // d and dmin are fitted (kRound, kFeed), refitted (kRefine); false for a part of a block
  int search_rounds;  // kFeed: of the search for a group's integers, or its d, by the loss that is left
  float* w;           // [cols] weights, for kRefine the gradient H (W - Q), which stays as it is
  float* change;      // [cols] out: errors over U_jj (kFeed), what is added to values (kRefine)
  float* scratch;     // [4 cols] (kRefine)
  uint8_t* codes;     // [cols]; null of a codebook
  const CodebookTables* tables;  // of a codebook, else null
  uint16_t* vectors;             // [cols / vector_cols] of a codebook
  uint8_t* signs;                // [cols / 8] of a codebook
  uint8_t *s, *m;                // [groups], null where there are none
  uint16_t *d, *dmin;            // [blocks]; dmin null where there are no offsets
  size_t stride, rows;
  double* loss;  // [rows] added to; null: not wanted
  // By column, the same for all rows.
  const float* factor;  // [cols, cols] by factor_stride: U (kFeed) or H (kRefine)
  size_t factor_stride;
  const float* reciprocal;  // [cols] 1 / factor_jj
  const float* importance;  // [cols] of squared errors, positive (kFit, kRound, kFeed)
};

// Does it for all rows. Everything that the jobs point to lies on the device. Jobs of one call are of one stage, one
// grid and as many rows, and do not depend on one another.
void RunRows(Device device, std::span<const RowJob> jobs);

// The processor's code as compiled for each instruction set of this machine, the slowest first (tests): `run`
// does a job of `rows` rows that are `rows` apart.
struct RowKernels {
  const char* target;
  size_t rows;
  void (*run)(const RowJob& job);
};
std::vector<RowKernels> RowKernelsOfAllTargets();

}  // namespace mica
