// A tile a block, a window of its rows a warp, which follows the one above it by a column.
#include <algorithm>

#include "base/error.h"
#include "ops/trellis/panel_cuda.h"
#include "ops/trellis/search_cuda.h"

namespace mica::cuda::trellis {
namespace {

constexpr int kRing = 8;  // columns that the first window of a tile may be ahead of its last one
// Warps of a block, by the rows of a lane: so that a lane has registers for them.
constexpr int MostWindows(int parts) { return parts == 1 ? 16 : 8; }
constexpr int kMostWindows = MostWindows(1);

// Of a block.
struct alignas(16) TileMemory {
  double sums[kSums][kTile];
  float errors[kPanel][kTile];     // as in Stage
  float row_errors[kRing][kTile];  // column p at p % kRing
  int state[kRing][kMostWindows];  // behind a window
  int done[kMostWindows];          // columns of the panel that a window has fixed
  unsigned widths[kMostWidths + 1];
};

__device__ void WaitFor(const int& done, int columns) {
  while (*static_cast<const volatile int*>(&done) < columns) __nanosleep(20);
  __threadfence_block();
  __syncwarp();
}

// Of column begin + p, what all rows share.
struct ColumnFacts {
  float u[kPanel / kWarp];  // U above it in the panel, rows i kWarp + lane, zeros from p on
  float u_here;             // U_pp
  float scale;
  int entropy_class;
};
__device__ inline ColumnFacts FactsOf(const Stage& stage, const Tile& tile, int begin, int p, int lane) {
  const float* u = stage.u + static_cast<size_t>(begin) * stage.u_stride + begin + p;
  ColumnFacts facts;
#pragma unroll
  for (int i = 0; i < kPanel / kWarp; ++i) {
    const int row = i * kWarp + lane;
    facts.u[i] = row < p ? __ldg(u + static_cast<size_t>(row) * stage.u_stride) : 0.0f;
  }
  facts.u_here = __ldg(u + static_cast<size_t>(p) * stage.u_stride);
  facts.scale = __ldg(stage.col_scale + begin + p);
  facts.entropy_class = __ldg(tile.col_class + begin + p);
  return facts;
}

// Fixes the columns of a panel in tiles first_tile + blockIdx.x: the tiles of turn t have panel step - t.
template <int kParts, bool kTrellis>
__global__ void __launch_bounds__(MostWindows(kParts) * kWarp, 1)
    SolvePanelOfTile(Stage stage, int first_tile, int step) {
  extern __shared__ float4 shared_memory[];
  TileMemory& tile_memory = *reinterpret_cast<TileMemory*>(shared_memory);
  auto* windows = reinterpret_cast<WindowMemory<kParts>*>(&tile_memory + 1);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, window = static_cast<int>(threadIdx.x) / kWarp;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int place = first_tile + static_cast<int>(blockIdx.x);
  const Tile tile = stage.tiles[place];
  const size_t slots = stage.slots, first_slot = static_cast<size_t>(place) * kTile;
  const int begin = (step - tile.turn) * kPanel, columns = min(kPanel, stage.cols - begin);
  const int together = (step - tile.turn) % kPanelsTogether * kPanel;  // where its errors stand
  WindowMemory<kParts>& memory = windows[window];

  for (int i = thread; i < kTile; i += threads) {
    for (int k = 0; k < kSums; ++k) tile_memory.sums[k][i] = stage.sums[k * slots + first_slot + i];
  }
  for (int i = thread; i < kPanel * kTile; i += threads) tile_memory.errors[0][i] = 0;
  for (int i = thread; i < kMostWidths; i += threads) tile_memory.widths[i] = 0;
  for (int i = thread; i < kMostWindows; i += threads) tile_memory.done[i] = 0;

  // Rows [first, last) are searched, those before `end` stay.
  const int first = window * stage.window, last = min(tile.rows, first + stage.window + stage.ahead);
  const int end = last == tile.rows ? last : first + stage.window, rows = last - first;
  const int last_window = tile.rows <= stage.ahead ? 0 : max(0, (tile.rows - stage.ahead - 1) / stage.window);
  const bool exists = window <= last_window;
  const int window_of_last = min(last_window, (last - 1) / stage.window);
  if (exists) {
    float* to = memory.v + lane;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll 8
      for (int r = part * kWarp; r < (part + 1) * kWarp; ++r) {
#pragma unroll
        for (int later = part; later < kParts; ++later, to += kWarp) {
          const int c = later * kWarp + lane;
          *to = tile.v != nullptr && c > r && c < rows
                    ? tile.v[static_cast<size_t>(first + r) * tile.v_stride + first + c]
                    : 0.0f;
        }
      }
    }
    if (lane < 4) *to = 0;
  }
  __syncthreads();

  if (exists) {
    const Role me = RoleOf(lane);
    bool here[kParts], stays[kParts];
    float row_scale[kParts], diagonal[kParts], next[kParts];
    int row_class[kParts], row_here[kParts];  // in the tile; of lanes without one, the first
    const float* work[kParts];
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const int row = first + part * kWarp + lane;
      here[part] = row < last;
      stays[part] = row < end;
      row_here[part] = here[part] ? row : first;
      work[part] = stage.work + static_cast<size_t>(begin) * slots + first_slot + row_here[part];
      row_scale[part] = here[part] ? stage.row_scale[first_slot + row] : 1.0f;
      row_class[part] = here[part] ? stage.row_class[first_slot + row] : 0;
      diagonal[part] =
          here[part] && tile.v != nullptr ? tile.v[static_cast<size_t>(row) * tile.v_stride + row] : 1.0f;
    }
    // What a column needs is read while the one before it is searched.
    ColumnFacts next_facts;
    const auto read = [&](int p) {
      next_facts = FactsOf(stage, tile, begin, p, lane);
#pragma unroll
      for (int part = 0; part < kParts; ++part) next[part] = work[part][static_cast<size_t>(p) * slots];
    };
    read(0);
    for (int p = 0; p < columns; ++p) {
      const ColumnFacts facts = next_facts;
#pragma unroll
      for (int i = 0; i < kPanel / kWarp; ++i) memory.u[i * kWarp + lane] = facts.u[i];
      const float reciprocal = 1.0f / facts.u_here;
      float w[kParts];
#pragma unroll
      for (int part = 0; part < kParts; ++part) w[part] = next[part];
      if (p + 1 < columns) read(p + 1);
      // Columns before it in the panel.
      if (window_of_last != window) WaitFor(tile_memory.done[window_of_last], p);
      __syncwarp();
#pragma unroll 4
      for (int i = 0; i < p; i += 4) {  // memory.u has zeros from p on
        const float4 factor = *reinterpret_cast<const float4*>(memory.u + i);
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          const float* e = &tile_memory.errors[i][row_here[part]];
          float sum = factor.x * e[0];
          sum = fmaf(factor.y, e[kTile], sum);
          sum = fmaf(factor.z, e[2 * kTile], sum);
          sum = fmaf(factor.w, e[3 * kTile], sum);
          w[part] -= sum;
        }
      }

      // Rows above it.
      float x[kParts];
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        x[part] = w[part];
        if (stage.above != nullptr && tile.turn > 0 && here[part])
          x[part] += stage.above[static_cast<size_t>(p) * slots + first_slot + row_here[part]];
      }
      if (window > 0) WaitFor(tile_memory.done[window - 1], p + 1);
      if (window < last_window && p >= kRing) WaitFor(tile_memory.done[last_window], p - kRing + 1);
      float* row_errors = tile_memory.row_errors[p % kRing];
      if (tile.v != nullptr) {
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          const float* v = tile.v + row_here[part];
          float sum = 0;
#pragma unroll 16
          for (int r = 0; r < first; ++r) sum = fmaf(row_errors[r], __ldg(v + r * tile.v_stride), sum);
          x[part] -= sum;
        }
      }

      float step_of[kParts], q[kParts], error[kParts];
      int n[kParts];
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        step_of[part] = row_scale[part] * facts.scale;
        const int entropy_class =
            min(max(row_class[part] + facts.entropy_class, stage.first_class), stage.last_class);
        memory.row[part * kWarp + lane] = make_float4(
            step_of[part], 1.0f / step_of[part], 1.0f / diagonal[part],
            __uint_as_float(static_cast<uint32_t>(entropy_class - stage.first_class) * kClassBytes));
      }
      __syncwarp();
      if constexpr (kTrellis) {
        Found found[kParts];
        const int start = window > 0 ? tile_memory.state[p % kRing][window - 1] : 0;
        Search(me, memory, rows, start, stage.prices, x, found);
        int state = 0;
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          const Found& one = found[part];
          const float size = one.level * step_of[part];
          const int magnitude =
              one.level > 0 ? static_cast<int>(0.5f * (one.level + static_cast<float>(one.quantiser))) : 0;
          n[part] = one.value < 0 ? -magnitude : magnitude;
          q[part] = magnitude == 0 ? 0.0f : one.value < 0 ? -size : size;
          error[part] = one.value - q[part];
          if (first + part * kWarp + lane == end - 1) state = one.after;
        }
        state = __shfl_sync(kAllLanes, state, (end - 1 - first) % kWarp);
        if (lane == 0) tile_memory.state[p % kRing][window] = state;
      } else {
        const float4 row = memory.row[lane];
        const char* prices = stage.prices + __float_as_uint(row.w);
        float value = x[0];
        if (tile.v != nullptr) {
          for (int r = 0; r + 1 < rows; ++r) {
            const float rest = value - static_cast<float>(Rounded(value, row.y, prices, stage.plain)) * row.x;
            value = fmaf(-__shfl_sync(kAllLanes, rest * row.z, r), memory.v[r * kWarp + lane], value);
          }
        }
        n[0] = Rounded(value, row.y, prices, stage.plain);
        q[0] = static_cast<float>(n[0]) * row.x;
        error[0] = value - q[0];
      }

#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        if (!stays[part]) continue;
        const int row = row_here[part];
        const size_t at = static_cast<size_t>(begin + p) * slots + first_slot + row;
        const float change = (w[part] - q[part]) * reciprocal, row_error = error[part] / diagonal[part];
        stage.work[at] = q[part];
        stage.n[at] = static_cast<int16_t>(n[part]);
        stage.errors[static_cast<size_t>(together + p) * slots + first_slot + row] = change;
        if (stage.row_errors != nullptr) stage.row_errors[at] = row_error;
        tile_memory.errors[p][row] = change;
        row_errors[row] = row_error;
        const double square = static_cast<double>(reciprocal) * reciprocal;
        tile_memory.sums[0][row] += static_cast<double>(error[part]) * error[part] * square;
        tile_memory.sums[1][row] += static_cast<double>(change) * change;
        tile_memory.sums[2][row] += static_cast<double>(w[part]) * w[part] * square;
        atomicAdd(&tile_memory.widths[32 - __clz(abs(n[part]))], 1u);
      }
      __syncwarp();
      if (lane == 0) {
        __threadfence_block();
        *static_cast<volatile int*>(&tile_memory.done[window]) = p + 1;
      }
      __syncwarp();
    }
  }
  __syncthreads();
  for (int i = thread; i < kTile; i += threads) {
    for (int k = 0; k < kSums; ++k) stage.sums[k * slots + first_slot + i] = tile_memory.sums[k][i];
  }
  for (int i = thread; i < kMostWidths; i += threads)
    stage.widths[static_cast<size_t>(place) * kMostWidths + i] += tile_memory.widths[i];
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

template <int kParts, bool kTrellis>
PanelKernel KernelOf(int windows) {
  return {SolvePanelOfTile<kParts, kTrellis>, static_cast<unsigned>(windows * kWarp),
          sizeof(TileMemory) + static_cast<size_t>(windows) * sizeof(WindowMemory<kParts>)};
}

dim3 BlocksOfWeights(const Stage& stage) {
  return dim3(Blocks(static_cast<size_t>(stage.cols), kWarp), Blocks(stage.slots, kWarp));
}

}  // namespace

Windows::Windows(const StepPrices& prices) {
  const bool chosen = prices.window > 0;
  const size_t rows = std::min(kCodedTileRows, chosen ? prices.window : kCudaWindow);
  const size_t behind = std::min(kCodedTileRows - rows, chosen ? prices.ahead : kCudaAhead);
  window = prices.trellis ? static_cast<int>(rows) : kWarp;
  ahead = prices.trellis ? static_cast<int>(behind) : 0;
}

PanelKernel ChoosePanelKernel(Device device, const Windows& windows, bool trellis) {
  const int count = windows.count(), parts = (windows.searched() + kWarp - 1) / kWarp;
  const PanelKernel kernel = !trellis     ? KernelOf<1, false>(count)
                             : parts == 1 ? KernelOf<1, true>(count)
                             : parts == 2 ? KernelOf<2, true>(count)
                                          : KernelOf<4, true>(count);
  int most = 0;
  StreamOn(device);
  CheckCuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device.index()),
            "asking for its shared memory");
  if (count > MostWindows(parts) || kernel.shared_bytes > static_cast<size_t>(most)) {
    Fail(
        "the trellis decides {} rows and looks {} ahead, which is too few or too far for {}; use a "
        "--trellis-window of 24 or more, or the processor",
        windows.window, windows.ahead, device.name());
  }
  return kernel;
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

void SolvePanel(Device device, const PanelKernel& kernel, const Stage& stage, size_t first, size_t last,
                size_t step) {
  Launch(device, kernel.kernel, Blocks(last - first, 1), kernel.threads, kernel.shared_bytes, stage,
         static_cast<int>(first), static_cast<int>(step));
}

}  // namespace mica::cuda::trellis
