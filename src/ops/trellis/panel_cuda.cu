// A tile a block, a column a warp: columns follow one another down the rows, each behind what the one before
// it has decided.
#include <algorithm>

#include "base/error.h"
#include "ops/trellis/panel_cuda.h"
#include "ops/trellis/search_cuda.h"

namespace mica::cuda::trellis {
namespace {

constexpr int kMostWarps = 4;  // one more than columns of the usual window that are under way in a tile
constexpr int kParts = kTile / kWarp;
// Between columns of a tile's errors: four lanes at each of eight rows then read from all banks.
constexpr int kPitch = kTile + kBegun;

// Of a block, without its warps' ColumnMemory.
struct alignas(16) TileMemory {
  double sums[kSums][kTile];
  float errors[kPanel][kPitch];  // as in Stage
  TileOfV v;
  float4 row[kTile];         // scale, 1 / scale, class as bits
  unsigned done[kPanel];     // rows that a column has decided
  unsigned counted[kPanel];  // and that are in the sums
  unsigned widths[kMostWidths + 1];
};

// Returns when `done` says so many rows.
__device__ inline void WaitFor(const unsigned& done, unsigned rows) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(&done));
  unsigned found;
  do {
    asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(found) : "r"(address) : "memory");
  } while (found < rows);
  __syncwarp();
}
// Lets it say so; what the warp has written before is there for who waits.
__device__ inline void Say(unsigned& done, unsigned rows) {
  __syncwarp();
  if (threadIdx.x % kWarp != 0) return;
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(&done));
  asm volatile("st.release.cta.shared.u32 [%0], %1;" ::"r"(address), "r"(rows) : "memory");
}

// That of the part of the tile; all are read, so that they stay in registers.
__device__ inline float Pick(const float (&values)[kParts], unsigned part) {
  const float first = values[0], second = values[1], third = values[2], fourth = values[3];
  const float low = part == 0 ? first : second, high = part == 2 ? third : fourth;
  return part < 2 ? low : high;
}

// far[part] -= errors of rows [decided, upto) of part kPart, which lanes have from lane decided - first on,
// times V.
template <unsigned kPart>
__device__ inline void ReachFar(const TileOfV& tile_v, unsigned first, unsigned decided, unsigned upto,
                                unsigned lane, float error, float (&far)[kParts]) {
  const float* v = tile_v.far + FarStart(kPart) + decided % kWarp * FarWidth(kPart) + lane;
#pragma unroll 4
  for (unsigned r = decided; r < upto; ++r, v += FarWidth(kPart)) {
    const float e = __shfl_sync(kAllLanes, error, static_cast<int>(r - first));
#pragma unroll
    for (unsigned part = kPart + 1; part < kParts; ++part)
      far[part] = fmaf(-e, v[(part - kPart - 1) * kWarp], far[part]);
  }
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
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, threads = blockDim.x,
                 thread = threadIdx.x;
  ColumnMemory& memory = reinterpret_cast<ColumnMemory*>(&tile_memory + 1)[warp];
  const int place = first_tile + static_cast<int>(blockIdx.x);
  const Tile tile = stage.tiles[place];
  const size_t slots = stage.slots, first_slot = static_cast<size_t>(place) * kTile;
  const int begin = (step - tile.turn) * kPanel, columns = min(kPanel, stage.cols - begin);
  const int together = (step - tile.turn) % kPanelsTogether * kPanel;  // where its errors stand
  const auto rows = static_cast<unsigned>(tile.rows), window = static_cast<unsigned>(stage.window),
             ahead = static_cast<unsigned>(stage.ahead);

  for (unsigned i = thread; i < kTile; i += threads) {
    for (int k = 0; k < kSums; ++k) tile_memory.sums[k][i] = stage.sums[k * slots + first_slot + i];
    const float scale = stage.row_scale[first_slot + i];
    tile_memory.row[i] =
        make_float4(scale, 1.0f / scale, __int_as_float(stage.row_class[first_slot + i]), 0.0f);
  }
  for (unsigned i = thread; i < kPanel * kPitch; i += threads) tile_memory.errors[0][i] = 0;
  for (unsigned i = thread; i < kMostWidths; i += threads) tile_memory.widths[i] = 0;
  for (unsigned i = thread; i < kPanel; i += threads) tile_memory.done[i] = tile_memory.counted[i] = 0;
  {
    const auto* from = reinterpret_cast<const float4*>(stage.v + place);
    auto* to = reinterpret_cast<float4*>(&tile_memory.v);
#pragma unroll 4
    for (unsigned i = thread; i < sizeof(TileOfV) / sizeof(float4); i += threads) to[i] = __ldg(from + i);
  }
  __syncthreads();

  const Role me = RoleOf(static_cast<int>(lane));
  const bool from_above = stage.above != nullptr && tile.turn > 0;
  // What a column needs is read while the one before it is searched. Of rows part kWarp + lane.
  ColumnFacts next_facts;
  float next_work[kParts], next_above[kParts] = {};
  const auto read = [&](int p) {
    next_facts = FactsOf(stage, tile, begin, p, static_cast<int>(lane));
#pragma unroll
    for (unsigned part = 0; part < kParts; ++part) {
      const size_t slot = first_slot + part * kWarp + lane;
      next_work[part] = stage.work[static_cast<size_t>(begin + p) * slots + slot];
      if (from_above) next_above[part] = stage.above[static_cast<size_t>(p) * slots + slot];
    }
  };
  const int warps = static_cast<int>(threads / kWarp);
  if (static_cast<int>(warp) < columns) read(static_cast<int>(warp));
  for (int p = static_cast<int>(warp); p < columns; p += warps) {
    const ColumnFacts facts = next_facts;
    // far: what errors of decided rows have made of rows that are not near to them.
    float work[kParts], above[kParts], far[kParts] = {};
#pragma unroll
    for (int part = 0; part < kParts; ++part) work[part] = next_work[part], above[part] = next_above[part];
    if (p + warps < columns) read(p + warps);
#pragma unroll
    for (int i = 0; i < kPanel / kWarp; ++i)
      memory.u[i * kWarp + lane] = i * kWarp + static_cast<int>(lane) < p - 1 ? facts.u[i] : 0.0f;
    const float last_factor =
        __shfl_sync(kAllLanes, p > kWarp ? facts.u[1] : facts.u[0], (p + kWarp - 1) % kWarp);
    static_assert(kPanel == 2 * kWarp);
    const float reciprocal = __frcp_rn(facts.u_here), inverse_scale = __frcp_rn(facts.scale);
    const double square = static_cast<double>(reciprocal) * reciprocal;
    Survivors ways;
    ways.Begin(me);
    __syncwarp();

    // ColumnMemory::row but for the value.
    const auto scales_of = [&](unsigned row) {
      const float4 of_row = tile_memory.row[row];
      const int entropy_class =
          min(max(__float_as_int(of_row.z) + facts.entropy_class, stage.first_class), stage.last_class);
      return make_float4(
          of_row.x * facts.scale, of_row.y * inverse_scale, 0.0f,
          __uint_as_float(static_cast<uint32_t>(entropy_class - stage.first_class) * kClassBytes));
    };
    // Rows [base, base + kBegun) are about to be searched.
    const auto begin_rows = [&](unsigned base) {
      const unsigned row = base + lane % kBegun, group = lane / kBegun, part = base / kWarp;
      float4 of_row = scales_of(row);
      const float before = Pick(work, part), besides = Pick(above, part) + Pick(far, part);
      // The last column's errors come last; those of the others are there.
      const unsigned decided = min(base + kBegun, rows);
      if (p > 1) WaitFor(tile_memory.done[p - 2], decided);
      constexpr int kTogetherRead = 4, kGroups = kWarp / kBegun;
      const float* errors = &tile_memory.errors[group][row];
      const float* u = memory.u + group;
      float sums[kTogetherRead] = {};
      for (int i = 0; i < p - 1; i += kTogetherRead * kGroups) {  // beyond, factors and errors are zeros
#pragma unroll
        for (int k = 0; k < kTogetherRead; ++k)
          sums[k] = fmaf(u[(i + k * kGroups)], errors[(i + k * kGroups) * kPitch], sums[k]);
      }
      float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#pragma unroll
      for (unsigned reach = kBegun; reach < kWarp; reach *= 2) sum += __shfl_xor_sync(kAllLanes, sum, reach);
      float last = 0;
      if (p > 0) {
        WaitFor(tile_memory.done[p - 1], decided);
        last = last_factor * tile_memory.errors[p - 1][row];
      }
      if (group == base % kWarp / kBegun) {
        const float w = before - (sum + last);
        memory.w[row % kRing] = w;
        of_row.z = w + besides;
        memory.row[lane] = of_row;
      }
      __syncwarp();
    };
    // What becomes of rows [first, upto), of which the lane has row first + lane, if it is one of them.
    const auto keep = [&](unsigned first, unsigned upto, int n, float q, float error) {
      const unsigned row = first + lane;
      const bool kept = row < upto;
      const float w = memory.w[row % kRing], change = (w - q) * reciprocal;
      if (kept) tile_memory.errors[p][row] = change;
      Say(tile_memory.done[p], upto);
      // The next column goes on meanwhile.
      if (p > 0) WaitFor(tile_memory.counted[p - 1], upto);
      if (kept) {
        const size_t at = static_cast<size_t>(begin + p) * slots + first_slot + row;
        stage.work[at] = q;
        stage.n[at] = static_cast<int16_t>(n);
        stage.errors[static_cast<size_t>(together + p) * slots + first_slot + row] = change;
        if (stage.row_errors != nullptr && tile.v != nullptr)
          stage.row_errors[at] = error / tile.v[static_cast<size_t>(row) * tile.v_stride + row];
        atomicAdd(&tile_memory.widths[32 - __clz(abs(n))], 1u);
        tile_memory.sums[0][row] += static_cast<double>(error) * error * square;
        tile_memory.sums[1][row] += static_cast<double>(change) * change;
        tile_memory.sums[2][row] += static_cast<double>(w) * w * square;
      }
      Say(tile_memory.counted[p], upto);
    };

    unsigned decided = 0;
    if constexpr (kTrellis) {
      const char* prices = stage.prices - size_t{kMagicBits} * sizeof(float2);
      asm("" : "+l"(prices));  // stays in one register: the compiler would subtract again in every row
      for (unsigned base = 0; base < rows; base += kBegun) {
        begin_rows(base);
        const unsigned now = min(base + kBegun, rows);
        float4 row[2] = {memory.row[base % kWarp], memory.row[(base + 1) % kWarp]};
        for (unsigned r = base; r < now; r += kLanes) {
          const Group group = GroupOf(me, memory, tile_memory.v, r, lane);
          if (r + kLanes <= rows) {
            Step<0>(me, group, r, lane, prices, row, ways);
            Step<1>(me, group, r + 1, lane, prices, row, ways);
            Step<2>(me, group, r + 2, lane, prices, row, ways);
            Step<3>(me, group, r + 3, lane, prices, row, ways);
            continue;
          }
          Step<0>(me, group, r, lane, prices, row, ways);
          if (r + 1 < rows) Step<1>(me, group, r + 1, lane, prices, row, ways);
          if (r + 2 < rows) Step<2>(me, group, r + 2, lane, prices, row, ways);
        }
        KeepWays(ways, base, now, lane, memory);
        if (now != rows && now < decided + window + ahead) continue;
        const unsigned upto = now == rows ? rows : decided + window;
        const int state = Decide(me, memory, upto, now, ways);
        for (unsigned first = decided; first < upto; first += kWarp) {
          const unsigned end = min(first + kWarp, upto), row = min(first + lane, end - 1);
          const Found found = FoundOf(memory, row, upto, state);
          const float4 scales = scales_of(row);
          const Choice choice = Choose(LevelsOf(found.quantiser, found.parity), scales, found.value, prices);
          const int magnitude =
              choice.level > 0 ? static_cast<int>(0.5f * (choice.level + static_cast<float>(found.quantiser)))
                               : 0;
          const float size = magnitude == 0 ? 0.0f : choice.level * scales.x;
          const float q = found.value < 0 ? -size : size, error = found.value - q;
          keep(first, end, found.value < 0 ? -magnitude : magnitude, q, error);
          if (now == rows) continue;  // nothing comes behind
          while (decided < end) {
            const unsigned part = decided / kWarp, last = min(end, (part + 1) * kWarp);
            if (part == 0) ReachFar<0>(tile_memory.v, first, decided, last, lane, error, far);
            if (part == 1) ReachFar<1>(tile_memory.v, first, decided, last, lane, error, far);
            if (part == 2) ReachFar<2>(tile_memory.v, first, decided, last, lane, error, far);
            decided = last;
          }
        }
        decided = upto;
      }
    } else {
      for (unsigned base = 0; base < rows; base += kWarp) {
        const unsigned now = min(base + kWarp, rows), part = base / kWarp;
        for (unsigned begun = base; begun < now; begun += kBegun) begin_rows(begun);
        const float4 row = memory.row[lane];
        const char* prices = stage.prices + __float_as_uint(row.w);
        float value = row.z;
        const auto v_of = [&](unsigned r, unsigned c) {  // V_rc / V_rr
          if (c <= r) return 0.0f;
          if (c >= FirstFar(r))
            return tile_memory.v.far[FarStart(part) + r % kWarp * FarWidth(part) + c - (part + 1) * kWarp];
          return tile_memory.v.near[r][c % kLanes][c / kLanes - (r + 1) / kLanes];
        };
        for (unsigned r = base; r < now; ++r) {
          const float rest = value - static_cast<float>(Rounded(value, row.y, prices, stage.plain)) * row.x;
          const float e = __shfl_sync(kAllLanes, rest, static_cast<int>(r % kWarp));
          value = fmaf(-e, v_of(r, base + lane), value);
#pragma unroll
          for (unsigned later = 1; later < kParts; ++later) {
            if (later > part) far[later] = fmaf(-e, v_of(r, later * kWarp + lane), far[later]);
          }
        }
        const int n = Rounded(value, row.y, prices, stage.plain);
        const float q = static_cast<float>(n) * row.x;
        keep(base, now, n, q, value - q);
      }
    }
  }
  __syncthreads();
  for (unsigned i = thread; i < kTile; i += threads) {
    for (int k = 0; k < kSums; ++k) stage.sums[k * slots + first_slot + i] = tile_memory.sums[k][i];
  }
  for (unsigned i = thread; i < kMostWidths; i += threads)
    stage.widths[static_cast<size_t>(place) * kMostWidths + i] += tile_memory.widths[i];
}

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
    const unsigned part = r / kWarp, first = (part + 1) * kWarp;
    float* far = v.far + FarStart(part) + r % kWarp * FarWidth(part);
    for (unsigned c = first + threadIdx.x; c < kTile; c += kArrangeThreads)
      far[c - first] = c >= FirstFar(r) ? over_diagonal(r, c) : 0.0f;
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

Windows::Windows(const StepPrices& prices, Device device) {
  if (!prices.trellis) {
    window = kWarp;
    return;
  }
  const size_t rows = prices.window > 0 ? prices.window : kCudaWindow,
               behind = prices.window > 0 ? prices.ahead : kCudaAhead;
  if (rows % kBegun != 0 || behind % kBegun != 0 || rows + behind > kMostOpen) {
    Fail(
        "the trellis decides {} rows and looks {} ahead, expected on {}: a --trellis-window and a "
        "--trellis-ahead of "
        "multiples of {}, both together at most {}",
        rows, behind, device.name(), kBegun, kMostOpen);
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

void SolvePanel(Device device, const PanelKernel& kernel, const Stage& stage, size_t first, size_t last,
                size_t step) {
  Launch(device, kernel.kernel, Blocks(last - first, 1), kernel.threads, kernel.shared_bytes, stage,
         static_cast<int>(first), static_cast<int>(step));
}

}  // namespace mica::cuda::trellis
