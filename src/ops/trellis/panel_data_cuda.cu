// What panels read and what becomes of it: V as a search reads it, weights by stored row and column, and what
// tiles above make of a panel.
#include "ops/trellis/panel_cuda.h"

namespace mica::cuda::trellis {
namespace {

// A block a tile.
constexpr int kArrangeThreads = 256;
__global__ void __launch_bounds__(kArrangeThreads) ArrangeTileOfV(Stage stage) {
  const Tile tile = stage.tiles[blockIdx.x];
  TileOfV& v = stage.v[blockIdx.x];
  const auto rows = static_cast<unsigned>(tile.rows);
  const auto over_diagonal = [&](unsigned r, unsigned c) {
    if (tile.v == nullptr || c <= r || r >= rows || c >= rows) return 0.0f;
    const float* row = tile.v + static_cast<size_t>(r) * tile.v_stride;
    return row[c] / row[r];
  };
  for (unsigned i = threadIdx.x; i < kTile * kLanes * kNear; i += kArrangeThreads) {
    const unsigned r = i / (kLanes * kNear), lane = i / kNear % kLanes, place = i % kNear;
    const unsigned first = (r + 1) / kLanes * kLanes;  // of the rows that lanes have then
    v.near[r][lane][place] = over_diagonal(r, first + place * kLanes + lane);
  }
  for (unsigned r = 0; r < kFarRows; ++r) {
    const unsigned half = r / kHalf;
    for (unsigned c = kWarp * FarPart(half) + threadIdx.x; c < kTile; c += kArrangeThreads)
      v.far[FarOf(r, c)] = c >= FirstFar(r) ? over_diagonal(r, c) : 0.0f;
  }
}

// What the tiles above in the same block of G make of a panel, as SolvePanel counts tiles and panels. A
// thread a row, kAboveCols columns a block.
constexpr int kAboveCols = 32;
__global__ void __launch_bounds__(kTile)
    AddAboveTile(Stage stage, const int* place_of, int first_tile, int step) {
  __shared__ float errors[kWarp][kAboveCols + 4];  // [row above][column]
  const int place = first_tile + static_cast<int>(blockIdx.x), r = static_cast<int>(threadIdx.x);
  const Tile tile = stage.tiles[place];
  const int in_panel = static_cast<int>(blockIdx.y) * kAboveCols;
  const int begin = (step - tile.turn) * kPanel + in_panel, columns = min(kAboveCols, stage.cols - begin);
  if (columns <= 0) return;
  float sums[kAboveCols] = {};
  for (int tile_above = 0; tile_above < tile.turn; ++tile_above) {
    const size_t slot = static_cast<size_t>(place_of[tile.first_above + tile_above]) * kTile;
    const float* v = tile.v - static_cast<size_t>((tile.turn - tile_above) * kTile) * tile.v_stride;
    for (int part = 0; part < kTile; part += kWarp) {
      __syncthreads();
      for (int c = r / kWarp; c < kAboveCols; c += kTile / kWarp) {
        errors[r % kWarp][c] =
            c < columns
                ? stage.row_errors[static_cast<size_t>(begin + c) * stage.slots + slot + part + r % kWarp]
                : 0.0f;
      }
      __syncthreads();
      for (int k = 0; k < kWarp; ++k) {
        const float v_here = r < tile.rows ? __ldg(v + static_cast<size_t>(part + k) * tile.v_stride + r) : 0;
#pragma unroll
        for (int c = 0; c < kAboveCols; c += 4) {
          const float4 e = *reinterpret_cast<const float4*>(&errors[k][c]);
          sums[c] = fmaf(e.x, v_here, sums[c]);
          sums[c + 1] = fmaf(e.y, v_here, sums[c + 1]);
          sums[c + 2] = fmaf(e.z, v_here, sums[c + 2]);
          sums[c + 3] = fmaf(e.w, v_here, sums[c + 3]);
        }
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kAboveCols; ++c) {
    if (c < columns)
      stage.above[static_cast<size_t>(in_panel + c) * stage.slots + static_cast<size_t>(place) * kTile + r] =
          -sums[c];
  }
}

// Weights of all matrices into `work`, and the other way; a block kWarp x kWarp of them, kWarp x kTurnRows
// threads.
constexpr int kTurnRows = 8;
__global__ void __launch_bounds__(kWarp* kTurnRows) TakeBlock(Stage stage) {
  __shared__ float block[kWarp][kWarp + 1];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int col = static_cast<int>(blockIdx.x) * kWarp, slot = static_cast<int>(blockIdx.y) * kWarp;
  const Tile tile = stage.tiles[slot / kTile];
  bool finite = true;
  for (int i = y; i < kWarp; i += kTurnRows) {
    const int row = stage.row_of[slot + i];
    const float value =
        row >= 0 && col + x < stage.cols ? tile.w[static_cast<size_t>(row) * tile.w_stride + col + x] : 0.0f;
    finite = finite && isfinite(value);
    block[i][x] = value;
  }
  if (!finite) *stage.not_finite = 1;
  __syncthreads();
  for (int i = y; i < kWarp; i += kTurnRows) {
    if (col + i >= stage.cols) continue;
    const int position = stage.position[col + i];
    stage.work[static_cast<size_t>(position < 0 ? ~position : position) * stage.slots + slot + x] =
        position < 0 ? 0.0f : block[x][i];
  }
}

__global__ void __launch_bounds__(kWarp* kTurnRows) GiveBlock(Stage stage) {
  __shared__ float values[kWarp][kWarp + 1];
  __shared__ int integers[kWarp][kWarp + 1];
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  const int col = static_cast<int>(blockIdx.x) * kWarp, slot = static_cast<int>(blockIdx.y) * kWarp;
  const Tile tile = stage.tiles[slot / kTile];
  for (int i = y; i < kWarp; i += kTurnRows) {
    if (col + i >= stage.cols) continue;
    const int position = stage.position[col + i];
    const size_t at = static_cast<size_t>(position < 0 ? ~position : position) * stage.slots + slot + x;
    values[i][x] = stage.work[at];
    integers[i][x] = stage.n[at];
  }
  __syncthreads();
  for (int i = y; i < kWarp; i += kTurnRows) {
    const int row = stage.row_of[slot + i];
    if (row < 0 || col + x >= stage.cols) continue;
    tile.n[static_cast<size_t>(row) * stage.cols + col + x] = static_cast<int16_t>(integers[x][i]);
    if (tile.weights != nullptr)
      tile.weights[static_cast<size_t>(row) * tile.weights_stride + col + x] = values[x][i];
  }
}

dim3 BlocksOfWeights(const Stage& stage) {
  return dim3(Blocks(static_cast<size_t>(stage.cols), kWarp), Blocks(stage.slots, kWarp));
}

}  // namespace

void ArrangeV(Device device, const Stage& stage, size_t tiles) {
  Launch(device, ArrangeTileOfV, Blocks(tiles, 1), kArrangeThreads, 0, stage);
}

void TakeWeights(Device device, const Stage& stage) {
  Launch(device, TakeBlock, BlocksOfWeights(stage), dim3(kWarp, kTurnRows), 0, stage);
}

void GiveResults(Device device, const Stage& stage) {
  Launch(device, GiveBlock, BlocksOfWeights(stage), dim3(kWarp, kTurnRows), 0, stage);
}

void AddAbove(Device device, const Stage& stage, const int* place_of, size_t first, size_t last,
              size_t step) {
  Launch(device, AddAboveTile, dim3(Blocks(last - first, 1), kPanel / kAboveCols), kTile, 0, stage, place_of,
         static_cast<int>(first), static_cast<int>(step));
}

}  // namespace mica::cuda::trellis
