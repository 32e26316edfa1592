// One compressed matrix of coding `entropy` in memory: small integers on a uniform grid whose step is a
// product of a row step and a column step, and the static model that codes them. docs/format.md describes the
// same on disk.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "format/entropy/tables.h"

namespace mica {

// Rows of a tile, counted in stored order: tiles are coded independently, and the trellis starts anew at the
// top of each.
inline constexpr size_t kCodedTileRows = 128;
inline constexpr size_t CodedTiles(size_t rows) { return (rows + kCodedTileRows - 1) / kCodedTileRows; }
// Column steps are 2^(e / 8); row steps 2^(e / 8), or 2^(e / 64) where rows were scaled after rounding.
inline constexpr int kStepResolution = 8, kFineStepResolution = 64;
inline constexpr int kMaxStepOctaves = 50;
// Integers lie within +- this.
inline constexpr int kMaxInteger = 32767;

// weight(r, c) = level(r, c) * (EntropyStep(row_step[r], row_resolution) * EntropyStep(col_step[c], 8)) in
// FP32. states 1: level = n. states 4 or 8 (dependent quantisation, as in VVC): each column runs through the
// machine TrellisOf(states), from state 0 at the top of each tile downwards in stored row order; with q =
// quantiser[state]: level = sign(n) (2 |n| - q), and 0 for n = 0; the next state is next[state][|n| & 1].
// Both quantisers together have step 1, either alone step 2.
struct EntropyMatrix {
  size_t rows = 0;
  size_t cols = 0;
  int states = 1;                        // 1, 4 or 8
  int row_resolution = kStepResolution;  // or kFineStepResolution
  Matrix<int16_t> n;                     // [rows, cols], original order
  std::vector<int16_t> row_key;   // [rows] rows are stored by rising key, equal keys in their own order;
                                  // empty: all in their own order
  std::vector<int16_t> row_step;  // [rows] exponents
  std::vector<int16_t> col_step;  // [cols]
  std::vector<int16_t>
      row_class;  // [rows] class(r, c) = row_class[r] + col_class[c], limited to the classes of `tables`
  std::vector<int16_t> col_class;  // [cols]
  EntropyTables tables;
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
std::vector<uint32_t> StoredRowOrder(const EntropyMatrix& matrix);

// 2^(exponent / resolution), FP32, the same on every machine; |exponent| <= kMaxStepOctaves * resolution.
float EntropyStep(int exponent, int resolution);

// Classes for weights that are still to be quantised, from the mean of |w| / step over rows and columns: what
// a rate-distortion search starts from. w: [rows, cols]; sets row_class and col_class from w, row_step,
// col_step and states.
void GuessClasses(MatrixView<const float> w, EntropyMatrix& matrix);

// Chooses tables, row_class and col_class for the integers of the matrix so that all that is stored becomes
// small. Classes already set are taken as a start. Does not depend on the number of threads.
void FitEntropyModel(EntropyMatrix& matrix);

// Bits of all integers under the matrix's model (code lengths, without what tiles and side information add);
// within 0.1 % of what is stored.
double EntropyCodeBits(const EntropyMatrix& matrix);

// out (rows x cols) = the weights.
void Decode(const EntropyMatrix& matrix, MatrixView<float> out);

}  // namespace mica
