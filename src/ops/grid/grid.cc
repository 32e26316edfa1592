#include "ops/grid/grid.h"

#include <limits>

#include "base/error.h"

namespace mica {
namespace {

int MaxCode(int bits) { return (1 << bits) - 1; }

Grid At(ScaleCode scale, float zero, int bits) {
  return {scale, static_cast<uint8_t>(std::clamp(zero, 0.0f, static_cast<float>(MaxCode(bits))))};
}

float GridError(std::span<const float> w, std::span<const float> importance, std::span<const uint8_t> keep,
                int bits, const Grid& grid) {
  const float scale = ToFloat(grid.scale);
  float error = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    if (!keep.empty() && keep[i] == 0) continue;
    const float difference =
        w[i] - GridValue(GridCode(w[i], scale, grid.zero, MaxCode(bits)), scale, grid.zero);
    error += importance[i] * difference * difference;
  }
  return error;
}

}  // namespace

Grid GridOver(float low, float high, int bits) {
  const ScaleCode scale = ToScaleCode((high - low) / static_cast<float>(MaxCode(bits)));
  return At(scale, std::nearbyint(-low / ToFloat(scale)), bits);
}

float ShrunkenShare(int step, int bits) {
  // The best range of a Gaussian is 1.5, 2.3 and 3.0 standard deviations at 2, 3 and 4 bits; 128 weights
  // reach to 2.7, outliers further.
  const float shortest = bits <= 2 ? 0.3f : bits == 3 ? 0.4f : bits == 4 ? 0.55f : 0.75f;
  return 1.0f - (1.0f - shortest) * static_cast<float>(step) / static_cast<float>(kGridShrinks - 1);
}

Grid MovedGrid(const Grid& grid, int move, int bits) {
  const int code = grid.scale.bits;
  switch (move) {
    case 0:
      return At({static_cast<uint8_t>(std::min(code + 1, 255))}, grid.zero, bits);
    case 1:
      return At({static_cast<uint8_t>(std::max(code - 1, 1))}, grid.zero, bits);
    case 2:
      return At(grid.scale, static_cast<float>(grid.zero) + 1.0f, bits);
    default:
      return At(grid.scale, static_cast<float>(grid.zero) - 1.0f, bits);
  }
}

Grid FitGrid(std::span<const float> w, std::span<const float> importance, std::span<const uint8_t> keep,
             int bits, int rounds) {
  MICA_CHECK(bits >= 2);
  MICA_CHECK(bits <= 8);
  MICA_CHECK(importance.size() == w.size());
  MICA_CHECK(keep.empty() || keep.size() == w.size());
  float low = 0, high = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    if (!keep.empty() && keep[i] == 0) continue;
    low = std::min(low, w[i]);
    high = std::max(high, w[i]);
  }
  Grid best = GridOver(low, high, bits);
  float best_error = std::numeric_limits<float>::infinity();
  const auto consider = [&](const Grid& candidate) {
    const float error = GridError(w, importance, keep, bits, candidate);
    if (!(error < best_error)) return;
    best = candidate;
    best_error = error;
  };
  for (int step = 0; step < kGridShrinks; ++step) {
    const float share = ShrunkenShare(step, bits);
    consider(GridOver(low * share, high * share, bits));
  }
  for (int round = 0; round < rounds; ++round) {
    for (int move = 0; move < kGridMoves; ++move) consider(MovedGrid(best, move, bits));
  }
  return best;
}

void KeepBetter(const TileGrids& candidate, const float* candidate_error, TileGrids* best,
                float* best_error) {
  for (size_t r = 0; r < kTileRows; ++r) {
    if (!(candidate_error[r] < best_error[r])) continue;
    best_error[r] = candidate_error[r];
    best->Set(r, candidate.grid[r]);
  }
}

void FitTileGrids(const float* w, size_t cols, const float* importance, const uint8_t* keep, int bits,
                  int rounds, TileGrids* grids) {
  float low[kTileRows] = {}, high[kTileRows] = {};
  for (size_t j = 0; j < cols; ++j) {
    for (size_t r = 0; r < kTileRows; ++r) {
      const float value = keep == nullptr || keep[j * kTileRows + r] != 0 ? w[j * kTileRows + r] : 0.0f;
      low[r] = std::min(low[r], value);
      high[r] = std::max(high[r], value);
    }
  }
  alignas(64) float best_error[kTileRows], error[kTileRows];
  std::fill_n(best_error, kTileRows, std::numeric_limits<float>::infinity());
  TileGrids candidate;
  for (size_t r = 0; r < kTileRows; ++r) grids->Set(r, GridOver(low[r], high[r], bits));
  for (int step = 0; step < kGridShrinks; ++step) {
    const float share = ShrunkenShare(step, bits);
    for (size_t r = 0; r < kTileRows; ++r) candidate.Set(r, GridOver(low[r] * share, high[r] * share, bits));
    GridErrors(w, cols, candidate.View(bits, keep), importance, error);
    KeepBetter(candidate, error, grids, best_error);
  }
  for (int round = 0; round < rounds; ++round) {
    for (int move = 0; move < kGridMoves; ++move) {
      for (size_t r = 0; r < kTileRows; ++r) candidate.Set(r, MovedGrid(grids->grid[r], move, bits));
      GridErrors(w, cols, candidate.View(bits, keep), importance, error);
      KeepBetter(candidate, error, grids, best_error);
    }
  }
}

}  // namespace mica
