// One panel of columns of the tiles of a stage, for tile_solver_cuda.cu: included by *_cuda.cu only.
//
// Everything by stored row is kept transposed, [cols, slots]: a tile has kTile slots, and tiles of equal
// place within their blocks of G stand together.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/cuda_kernel.h"
#include "ops/trellis/tile_solver.h"

namespace mica::cuda::trellis {

inline constexpr int kTile = static_cast<int>(kCodedTileRows);
inline constexpr int kStates = kTrellisStates;
inline constexpr int kPanel = 64;          // columns that one kernel fixes
inline constexpr int kPanelsTogether = 4;  // whose errors go to all later columns by one product
inline constexpr int kTogether = kPanelsTogether * kPanel;
inline constexpr int kMostWidths = 17;  // of TileTally
inline constexpr int kSums = 3;         // of a row: its loss, error and energy

// Prices of magnitudes 2 k + parity stand at k, those beyond at the last.
inline constexpr int kPriced = EntropyRates::kMagnitudes / 2;
inline constexpr uint32_t kPriceBytes = kPriced * sizeof(float2);
inline constexpr uint32_t kClassBytes = 4 * kPriceBytes;  // [quantiser][parity]
inline constexpr float kNever = 1e30f;

constexpr int kLanes = 32 / kStates;  // of a state
// Rows to come of which a lane keeps what errors have made: of r, those of 4 (r / 4) + 4 i + lane % 4. What
// is decided reaches rows behind them by itself.
constexpr int kNear = 12;
constexpr unsigned kBegun = 8;  // rows that are begun together
// Rows that are searched before they are decided, a multiple of kBegun.
constexpr unsigned kMostOpen = kNear * kLanes;
// The first row that is not near to r. The last of a group of four has gone on to the next.
__host__ __device__ constexpr unsigned FirstFar(unsigned r) {
  return (r + 1) / kLanes * kLanes + kNear * kLanes;
}

// Rows that are not near to some others, by halves of kWarp; those of half h are so to rows from
// kWarp * FarPart(h) on, and none are to the last.
constexpr unsigned kHalf = 16;
constexpr unsigned kFarRows = kTile - kMostOpen;
__host__ __device__ constexpr unsigned FarPart(unsigned half) { return (half + 1) / 2 + 1; }
__host__ __device__ constexpr unsigned FarWidth(unsigned half) { return kTile - 32 * FarPart(half); }
// The sum of the widths before it.
__host__ __device__ constexpr unsigned FarStart(unsigned half) {
  return kHalf * (half * FarWidth(0) - 32 * (half * half / 4));
}
static_assert(FarStart(5) == kHalf * (FarWidth(0) + FarWidth(1) + FarWidth(2) + FarWidth(3) + FarWidth(4)));
static_assert(kMostOpen == 3 * kHalf && kFarRows % kHalf == 0);

// V of a tile over its diagonal, V_rk / V_rr for k > r, zeros elsewhere, as a search reads it.
struct alignas(16) TileOfV {
  float near[kTile][kLanes][kNear];
  // [half][row of it][rows from kWarp * FarPart on], zeros where they are near.
  float far[FarStart(kFarRows / kHalf)];
};
__device__ inline unsigned FarOf(unsigned r, unsigned c) {
  const unsigned half = r / kHalf;
  return FarStart(half) + r % kHalf * FarWidth(half) + c - 32 * FarPart(half);
}

struct Tile {
  const float* v;  // V at the tile's first row and column; null: rows do not feed back
  size_t v_stride;
  const float* w;  // its matrix
  size_t w_stride;
  float* weights;  // null: not wanted
  size_t weights_stride;
  int16_t* n;            // [rows, cols]
  const int* col_class;  // [cols] by position
  int rows;              // of the tile, the other slots are empty
  int turn;              // tiles above it in its block of G
  int first_above;       // of those, as tiles are counted in `place_of`
};

// All that is solved together.
struct Stage {
  const Tile* tiles;
  TileOfV* v;         // [tiles]
  const int* row_of;  // [slots] row of the matrix, -1: none
  const float* row_scale;
  const int* row_class;    // [slots]
  const float* col_scale;  // [cols] by position
  const int* position;     // [cols] by column: its position, ~position where weights count as 0
  const float* u;
  size_t u_stride;
  const char* prices;  // [classes][quantiser][parity][kPriced] of this magnitude and the one before it
  int first_class, last_class;
  bool plain;  // nothing has a price
  int window, ahead;
  int cols;
  size_t slots;
  float* work;        // [cols, slots] weights with the errors of earlier columns; of columns fixed: as stored
  int16_t* n;         // [cols, slots]
  float* errors;      // [kTogether, slots] (w - q) / U_pp
  float* row_errors;  // [cols, slots] errors over V_rr, where tiles feed others; else null
  float* above;       // [kPanel, slots] what tiles above add; else null
  double* sums;       // [kSums, slots]
  unsigned long long* widths;  // [tiles, kMostWidths]
  int* not_finite;
};

// Rows of a column that are decided together, and rows behind them that are searched before: StepPrices where
// a window is chosen. Throws Error where the device has no such windows.
struct Windows {
  Windows(const StepPrices& prices, Device device);
  int window, ahead = 0;
};

// How panels are fixed.
struct PanelKernel {
  void (*kernel)(Stage, int, int);
  unsigned threads;
  size_t shared_bytes;
};
PanelKernel ChoosePanelKernel(Device device, bool trellis);

// Stage::v of `tiles` tiles.
void ArrangeV(Device device, const Stage& stage, size_t tiles);
// Weights of all matrices into Stage::work, and what has become of them to where they belong.
void TakeWeights(Device device, const Stage& stage);
void GiveResults(Device device, const Stage& stage);

// Tiles [first, last): those of turn t have panel step - t. What the tiles above in the same block of G make
// of it, for tiles of turn 1 and more; place_of: [tiles] by Tile::first_above.
void AddAbove(Device device, const Stage& stage, const int* place_of, size_t first, size_t last, size_t step);
// Fixes its columns.
void SolvePanel(Device device, const PanelKernel& kernel, const Stage& stage, size_t first, size_t last,
                size_t step);

}  // namespace mica::cuda::trellis
