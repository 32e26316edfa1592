// One compressed matrix of coding `entropy` in memory: small integers on a uniform grid whose step is a
// product of a row step and a column step, and the static model that codes them. docs/format.md describes the
// same on disk.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "format/entropy/tables.h"

namespace mica {

// Rows of a tile, counted in stored order: tiles are coded independently, and the trellis starts anew at the
// top of each. What is written has kCodedTileRows; readers know up to kMostTileRows.
inline constexpr size_t kCodedTileRows = 128, kMostTileRows = 4096;
inline constexpr size_t CodedTiles(size_t rows, size_t tile_rows = kCodedTileRows) {
  return (rows + tile_rows - 1) / tile_rows;
}
// A tile is coded in lanes, a column each; the lanes' states are independent and share one stream of words.
inline constexpr size_t kMostLanes = 32;
inline constexpr bool IsLaneCount(size_t lanes) {
  return lanes >= 1 && lanes <= kMostLanes && (lanes & (lanes - 1)) == 0;
}
// Column steps are 2^(e / 8); row steps 2^(e / 8), or 2^(e / 64) where rows were scaled after rounding.
inline constexpr int kStepResolution = 8, kFineStepResolution = 64;
inline constexpr int kMaxStepOctaves = 50;
// Integers lie within +- this.
inline constexpr int kMaxInteger = 32767;

// What is stored of a matrix beside its tensors.
struct EntropyFacts {
  size_t rows = 0;
  size_t cols = 0;
  int states = 1;
  size_t lanes = 1;
  size_t tile_rows = kCodedTileRows;
  int row_resolution = kStepResolution;
  int first_knot = 0;  // of its tables
};

// All of a matrix but its integers n:
// weight(r, c) = level(r, c) * (EntropyStep(row_step[r], row_resolution) * EntropyStep(col_step[c], 8)) in
// FP32. states 1: level = n. states 4 or 8 (dependent quantisation, as in VVC): each column runs through the
// machine TrellisOf(states), from state 0 at the top of each tile downwards in stored row order; with q =
// quantiser[state]: level = sign(n) (2 |n| - q), and 0 for n = 0; the next state is next[state][|n| & 1].
// Both quantisers together have step 1, either alone step 2.
struct EntropyFrame {
  size_t rows = 0;
  size_t cols = 0;
  int states = 1;                        // 1, 4 or 8
  size_t tile_rows = kCodedTileRows;     // 1 to kMostTileRows
  int row_resolution = kStepResolution;  // or kFineStepResolution
  std::vector<int16_t> row_key;   // [rows] rows are stored by rising key, equal keys in their own order;
                                  // empty: all in their own order
  std::vector<int16_t> row_step;  // [rows] exponents
  std::vector<int16_t> col_step;  // [cols]
  std::vector<int16_t>
      row_class;  // [rows] class(r, c) = row_class[r] + col_class[c], limited to the classes of `tables`
  std::vector<int16_t> col_class;  // [cols]
  EntropyTables tables;

  size_t tiles() const { return CodedTiles(rows, tile_rows); }
};

struct EntropyMatrix : EntropyFrame {
  Matrix<int16_t> n;  // [rows, cols], original order
};

// The machine of dependent quantisation. One state: n is the level.
struct Trellis {
  std::array<std::array<uint8_t, 2>, 8> next;  // [state][|n| & 1]
  std::array<uint8_t, 8> quantiser;            // [state]
  int spacing;                                 // of the levels of one quantiser
  int Level(int n, int q) const { return n == 0 ? 0 : n > 0 ? spacing * n - q : spacing * n + q; }
};
const Trellis& TrellisOf(int states);

// Stored position -> row: what row_key says.
std::vector<uint32_t> StoredRowOrder(const EntropyFrame& matrix);

// 2^(exponent / resolution), FP32, the same on every machine; |exponent| <= kMaxStepOctaves * resolution.
float EntropyStep(int exponent, int resolution);

// Decodes the rows of one tile; order: StoredRowOrder; out: all weights, [rows, cols].
void DecodeTile(const EntropyMatrix& matrix, std::span<const uint32_t> order, size_t tile,
                MatrixView<float> out);

}  // namespace mica
