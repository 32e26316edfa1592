// A tile a block, a column a warp: columns follow one another down the rows, each behind what the one before
// it has decided.
#include <algorithm>
#include <bit>

#include "base/error.h"
#include "ops/trellis/panel_cuda.h"
#include "ops/trellis/search_cuda.h"

namespace mica::cuda::trellis {
namespace {

constexpr int kMostWarps = 8;
// Between columns of a tile's errors: four lanes at each of eight rows then read from all banks.
constexpr int kPitch = kTile + 8;

// Of a block, without its warps' ColumnMemory.
struct alignas(16) TileMemory {
  double sums[kSums][kTile];
  float errors[kPanel][kPitch];  // as in Stage
  float v[kValuesOfV];           // as Follow reads it
  int done[kPanel];              // rows that a column has decided
  int counted[kPanel];           // and that are in the sums
  unsigned widths[kMostWidths + 1];
};

// Returns when `done` says so many rows.
__device__ inline void WaitFor(const int& done, int rows) {
  while (*static_cast<const volatile int*>(&done) < rows) {
  }
  __threadfence_block();
  __syncwarp();
}
// Lets it say so; what the warp has written before is there for who waits.
__device__ inline void Say(int& done, int rows) {
  __syncwarp();
  if (threadIdx.x % kWarp != 0) return;
  __threadfence_block();
  *static_cast<volatile int*>(&done) = rows;
}

// What all rows of a column share.
struct ColumnFacts {
  float u[kPanel / kWarp];  // U above it in the panel, rows i kWarp + lane, zeros from it on
  float u_here;             // U_pp
  float scale;
  int entropy_class;
};
// Column begin + p of the stage.
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
template <bool kTrellis>
__global__ void __launch_bounds__(kMostWarps* kWarp, 2)
    SolvePanelOfTile(Stage stage, int first_tile, int step) {
  extern __shared__ float4 shared_memory[];
  TileMemory& tile_memory = *reinterpret_cast<TileMemory*>(shared_memory);
  auto* columns_memory = reinterpret_cast<ColumnMemory*>(&tile_memory + 1);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const int place = first_tile + static_cast<int>(blockIdx.x);
  const Tile tile = stage.tiles[place];
  const size_t slots = stage.slots, first_slot = static_cast<size_t>(place) * kTile;
  const int begin = (step - tile.turn) * kPanel, columns = min(kPanel, stage.cols - begin), rows = tile.rows;
  const int together = (step - tile.turn) % kPanelsTogether * kPanel;  // where its errors stand
  ColumnMemory& memory = columns_memory[warp];

  for (int i = thread; i < kTile; i += threads) {
    for (int k = 0; k < kSums; ++k) tile_memory.sums[k][i] = stage.sums[k * slots + first_slot + i];
  }
  for (int i = thread; i < kMostWidths; i += threads) tile_memory.widths[i] = 0;
  for (int i = thread; i < kPanel; i += threads) tile_memory.done[i] = tile_memory.counted[i] = 0;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    for (int i = thread; i < kWarp * WidthOfPart(part); i += threads) {
      const int r = part * kWarp + i / WidthOfPart(part), c = part * kWarp + i % WidthOfPart(part);
      tile_memory.v[StartOfPart(part) + i] =
          tile.v != nullptr && c > r && c < rows ? tile.v[static_cast<size_t>(r) * tile.v_stride + c] : 0.0f;
    }
  }
  for (int i = kValuesOfV - 4 + thread; i < kValuesOfV; i += threads) tile_memory.v[i] = 0;
  __syncthreads();

  const Role me = RoleOf(lane);
  // Rows part kWarp + lane; those that are not there are like the first.
  float row_scale[kParts], inverse_diagonal[kParts], next_work[kParts], next_above[kParts] = {};
  int row_class[kParts], row_here[kParts];
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int row = part * kWarp + lane < rows ? part * kWarp + lane : 0;
    row_here[part] = row;
    row_scale[part] = stage.row_scale[first_slot + row];
    row_class[part] = stage.row_class[first_slot + row];
    inverse_diagonal[part] =
        tile.v != nullptr ? 1.0f / tile.v[static_cast<size_t>(row) * tile.v_stride + row] : 1.0f;
  }
  const bool from_above = stage.above != nullptr && tile.turn > 0;
  // What a column needs is read while the one before it is searched.
  ColumnFacts next_facts;
  const auto read = [&](int p) {
    next_facts = FactsOf(stage, tile, begin, p, lane);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      next_work[part] = stage.work[static_cast<size_t>(begin + p) * slots + first_slot + row_here[part]];
      if (from_above)
        next_above[part] = stage.above[static_cast<size_t>(p) * slots + first_slot + row_here[part]];
    }
  };
  const int warps = threads / kWarp;
  if (warp < columns) read(warp);
  for (int p = warp; p < columns; p += warps) {
    const ColumnFacts facts = next_facts;
    float work[kParts], above[kParts];
#pragma unroll
    for (int part = 0; part < kParts; ++part) work[part] = next_work[part], above[part] = next_above[part];
    if (p + warps < columns) read(p + warps);
#pragma unroll
    for (int i = 0; i < kPanel / kWarp; ++i) memory.u[i * kWarp + lane] = facts.u[i];
    const float reciprocal = 1.0f / facts.u_here;
    const double square = static_cast<double>(reciprocal) * reciprocal;
    Survivors ways;
    ways.Begin(me, memory);
    __syncwarp();

    // Of the lane's latest row that is begun.
    float w = 0, x = 0;
    // Rows [base, base + window) are about to be searched.
    const auto begin_rows = [&](int part, int base) {
      const int group = lane / stage.window, groups = kWarp / stage.window;
      const bool here = group == base % kWarp / stage.window;
      if (here) {
        const float step_here = row_scale[part] * facts.scale;
        const int entropy_class =
            min(max(row_class[part] + facts.entropy_class, stage.first_class), stage.last_class);
        memory.row[lane] = make_float4(
            step_here, 1.0f / step_here, inverse_diagonal[part],
            __uint_as_float(static_cast<uint32_t>(entropy_class - stage.first_class) * kClassBytes));
      }
      // The last column's errors come last; those of the others are there.
      const int decided = min(base + stage.window, rows);
      if (p > 1) WaitFor(tile_memory.done[p - 2], decided);
      const float* errors = &tile_memory.errors[0][base + lane % stage.window];
      float sum = 0;
#pragma unroll 4
      for (int i = group; i < p - 1; i += groups) sum = fmaf(memory.u[i], errors[i * kPitch], sum);
      for (int reach = stage.window; reach < kWarp; reach *= 2) sum += __shfl_xor_sync(kAllLanes, sum, reach);
      float last = 0;
      if (p > 0) {
        WaitFor(tile_memory.done[p - 1], decided);
        last = memory.u[p - 1] * errors[(p - 1) * kPitch];
      }
      if (here) {
        w = work[part] - (sum + last);
        x = w + above[part];
      }
      __syncwarp();
    };
    // What becomes of rows [decided, upto), the lane's latest among them or not; rows before `now` are
    // searched.
    const auto keep = [&](int decided, int upto, int now, int n, float q, float error) {
      const int row = now - 1 - ((now - 1 - lane) & (kWarp - 1));
      const bool kept = row >= decided && row < upto;
      const float change = (w - q) * reciprocal;
      if (kept) tile_memory.errors[p][row] = change;
      Say(tile_memory.done[p], upto);
      // The next column goes on meanwhile.
      if (p > 0) WaitFor(tile_memory.counted[p - 1], upto);
      if (kept) {
        const size_t at = static_cast<size_t>(begin + p) * slots + first_slot + row;
        stage.work[at] = q;
        stage.n[at] = static_cast<int16_t>(n);
        stage.errors[static_cast<size_t>(together + p) * slots + first_slot + row] = change;
        if (stage.row_errors != nullptr) stage.row_errors[at] = error * memory.row[lane].z;
        atomicAdd(&tile_memory.widths[32 - __clz(abs(n))], 1u);
        tile_memory.sums[0][row] += static_cast<double>(error) * error * square;
        tile_memory.sums[1][row] += static_cast<double>(change) * change;
        tile_memory.sums[2][row] += static_cast<double>(w) * w * square;
      }
      Say(tile_memory.counted[p], upto);
    };

    int decided = 0;
    const auto search = [&](auto part_constant) {
      constexpr int kPart = decltype(part_constant)::value;
      constexpr int kFirst = kPart * kWarp;
      for (int base = kFirst; base < min(rows, kFirst + kWarp); base += stage.window) {
        begin_rows(kPart, base);
        const int now = min(base + stage.window, rows);
        if constexpr (kTrellis) {
          Follow<kPart>(me, memory, tile_memory.v, base - kFirst, now - kFirst, stage.prices, x, ways);
          const int upto = now == rows ? rows : now - stage.ahead;
          if (upto <= decided) continue;
          const Found found = Decide(me, memory, decided, upto, now, ways);
          const float step_here = memory.row[lane].x;
          const int magnitude =
              found.level > 0 ? static_cast<int>(0.5f * (found.level + static_cast<float>(found.quantiser)))
                              : 0;
          const float size = magnitude == 0 ? 0.0f : found.level * step_here;
          const float q = found.value < 0 ? -size : size;
          keep(decided, upto, now, found.value < 0 ? -magnitude : magnitude, q, found.value - q);
          decided = upto;
        } else {
          const float4 row = memory.row[lane];
          const char* prices = stage.prices + __float_as_uint(row.w);
          float value = x + ways.fed[kPart][0];
          const float* v = tile_memory.v + StartOfPart(kPart);
          for (int r = 0; r < now - base; ++r, v += WidthOfPart(kPart)) {
            const float rest = value - static_cast<float>(Rounded(value, row.y, prices, stage.plain)) * row.x;
            const float e = __shfl_sync(kAllLanes, rest * row.z, r);
            value = fmaf(-e, v[lane], value);  // V has zeros up to the diagonal
#pragma unroll
            for (int later = kPart + 1; later < kParts; ++later)
              ways.fed[later][0] = fmaf(-e, v[(later - kPart) * kWarp + lane], ways.fed[later][0]);
          }
          const int n = Rounded(value, row.y, prices, stage.plain);
          const float q = static_cast<float>(n) * row.x;
          keep(base, now, now, n, q, value - q);
        }
      }
    };
    search(std::integral_constant<int, 0>());
    search(std::integral_constant<int, 1>());
    search(std::integral_constant<int, 2>());
    search(std::integral_constant<int, 3>());
    static_assert(kParts == 4);
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

dim3 BlocksOfWeights(const Stage& stage) {
  return dim3(Blocks(static_cast<size_t>(stage.cols), kWarp), Blocks(stage.slots, kWarp));
}

}  // namespace

Windows::Windows(const StepPrices& prices, Device device) {
  if (!prices.trellis) {
    window = kWarp;
    return;
  }
  const size_t rows = prices.window > 0 ? prices.window : kCudaWindow,
               behind = prices.window > 0 ? prices.ahead : kCudaAhead;
  if (rows < 8 || !std::has_single_bit(rows) || behind % rows != 0 || rows + behind > kWarp) {
    Fail(
        "the trellis decides {} rows and looks {} ahead, expected on {}: --trellis-window 8, 16 or 32, "
        "--trellis-ahead a multiple of it, both together at most {} rows",
        rows, behind, device.name(), kWarp);
  }
  window = static_cast<int>(rows);
  ahead = static_cast<int>(behind);
}

PanelKernel ChoosePanelKernel(Device device, bool trellis) {
  int most = 0;
  StreamOn(device);
  CheckCuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device.index()),
            "asking for its shared memory");
  MICA_CHECK(static_cast<size_t>(most) >= sizeof(TileMemory) + sizeof(ColumnMemory));
  const size_t warps =
      std::min<size_t>(kMostWarps, (static_cast<size_t>(most) - sizeof(TileMemory)) / sizeof(ColumnMemory));
  return {trellis ? SolvePanelOfTile<true> : SolvePanelOfTile<false>, static_cast<unsigned>(warps * kWarp),
          sizeof(TileMemory) + warps * sizeof(ColumnMemory)};
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
