// The asymmetric uniform grid of one scale group of one row, w = (code - zero) * scale, at the precision that
// is stored.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>

#include "format/fixed/scale_code.h"
#include "ops/feedback/feedback.h"

namespace mica {

struct Grid {
  ScaleCode scale;
  uint8_t zero = 0;
};

// The code of the grid point nearest to w (w / scale to the nearest integer, ties to even), within [0,
// max_code].
inline uint16_t GridCode(float w, float scale, int zero, int max_code) {
  const float code = std::nearbyint(w / scale) + static_cast<float>(zero);
  return static_cast<uint16_t>(std::clamp(code, 0.0f, static_cast<float>(max_code)));
}
inline float GridValue(uint16_t code, float scale, int zero) {
  return static_cast<float>(static_cast<int>(code) - zero) * scale;
}

// The grid of `bits` bits (2 .. 8) over [low, high], which holds 0: scale (high - low) / (2^bits - 1) rounded
// to what is stored, positive and finite whatever the range.
Grid GridOver(float low, float high, int bits);

// How grids are searched, for one group of weights (the scalar FitGrid) and for the rows of a tile alike.
// First kGridShrinks ranges from [min(w, 0), max(w, 0)] down to the shortest that can pay at these bits; then
// `rounds` rounds of four moves around the best so far (the next scale above, the next below, zero + 1, zero
// - 1). Each is kept when it lowers the error.
inline constexpr int kGridShrinks = 24;
inline constexpr int kGridMoves = 4;
inline constexpr int kGridRounds = 3;
float ShrunkenShare(int step, int bits);  // step in [0, kGridShrinks): share of the range that is kept
Grid MovedGrid(const Grid& grid, int move, int bits);

// The grid of `bits` bits (2 .. 8) that the search finds to have the least sum_i importance[i] * (w[i] -
// quantised(w[i]))^2 over the weights that `keep` (or empty: all) marks. The scale is rounded to what is
// stored before errors are measured. importance: >= 0, one a weight.
Grid FitGrid(std::span<const float> w, std::span<const float> importance, std::span<const uint8_t> keep,
             int bits, int rounds = kGridRounds);

// The grids of the rows of a tile (ops/feedback/feedback.h), as the kernels take them.
struct TileGrids {
  std::array<Grid, kTileRows> grid;
  alignas(64) std::array<float, kTileRows> scale;
  alignas(64) std::array<float, kTileRows> zero;

  void Set(size_t row, const Grid& value) {
    grid[row] = value;
    scale[row] = ToFloat(value.scale);
    zero[row] = static_cast<float>(value.zero);
  }
  TileGrid View(int bits, const uint8_t* keep) const { return {bits, scale.data(), zero.data(), keep}; }
};

// FitGrid for each row of a tile. w: [cols, kTileRows]; importance: [cols]; keep: [cols, kTileRows] or null.
// The moves of the second stage are left out when `rounds` is 0.
void FitTileGrids(const float* w, size_t cols, const float* importance, const uint8_t* keep, int bits,
                  int rounds, TileGrids* grids);

// One step of such a search by any measure of error: `candidate` replaces the grids of the rows in which its
// error is below theirs.
void KeepBetter(const TileGrids& candidate, const float* candidate_error, TileGrids* best, float* best_error);

}  // namespace mica
