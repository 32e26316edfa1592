// A tile a block, a column two warps: one searches its rows, behind what the column before it has decided,
// and one prepares them and counts what has been decided.
#include <algorithm>

#include "base/error.h"
#include "ops/trellis/panel_cuda.h"
#include "ops/trellis/search_cuda.h"

namespace mica::cuda::trellis {
namespace {

constexpr int kMostPairs =
    4;  // of warps; one more than columns of the usual window that are under way in a tile
constexpr int kParts = kTile / kWarp;
// Between rows of a tile's errors: eight of them, four columns each, are then read from all banks.
constexpr int kPitch = kPanel + 4;
constexpr int kGroups = kWarp / static_cast<int>(kBegun);  // lanes that add for a row

// Of a block, without ColumnMemory.
struct alignas(16) TileMemory {
  double sums[kSums][kTile];
  float errors[kTile][kPitch];  // as in Stage, by row
  TileOfV v;
  float4 row[kTile];          // scale, 1 / scale, class as bits, V_rr
  unsigned prepared[kPanel];  // rows of a column that can be searched once the last column has decided them
  unsigned done[kPanel];      // that are decided
  unsigned counted[kPanel];   // and that are in the sums
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

// far[part] -= errors of rows [decided, decided + kBegun), which lanes have from lane decided - first on,
// times V, which is zeros there in parts before that of kRows' half.
template <unsigned kRows>
__device__ inline void ReachFar(const TileOfV& tile_v, unsigned first, unsigned decided, unsigned lane,
                                float error, float (&far)[kParts]) {
  const float* v = tile_v.far + FarOf(decided, kWarp * FarPart(kRows) + lane);
#pragma unroll
  for (unsigned r = 0; r < kBegun; ++r) {
    const float e = __shfl_sync(kAllLanes, error, static_cast<int>(decided + r - first));
#pragma unroll
    for (unsigned part = FarPart(kRows); part < kParts; ++part)
      far[part] = fmaf(-e, v[r * FarWidth(kRows) + (part - FarPart(kRows)) * kWarp], far[part]);
  }
}

// What the warps of a block share.
struct Block {
  const Stage& stage;
  const Tile& tile;
  TileMemory& memory;
  size_t first_slot;
  int begin, together;  // its first column, and where errors of that stand
  unsigned rows, lane;
};

// What the search of a column needs of it.
struct SearchFacts {
  float u_last, u_here;  // U of the column before it, U_pp
};
// Of column begin + p.
__device__ inline SearchFacts SearchFactsOf(const Block& block, int p) {
  const float* u = block.stage.u + static_cast<size_t>(block.begin) * block.stage.u_stride + block.begin + p;
  return {p > 0 ? __ldg(u + static_cast<size_t>(p - 1) * block.stage.u_stride) : 0.0f,
          __ldg(u + static_cast<size_t>(p) * block.stage.u_stride)};
}

// What lanes with a row have decided for it, for the next column and for who counts.
__device__ inline void Give(const Block& block, ColumnMemory& memory, int p, unsigned row, bool kept, int n,
                            float q, float error, float reciprocal) {
  if (!kept) return;
  block.memory.errors[row][p] = (memory.w[row] - q) * reciprocal;
  memory.error[row] = error;
  memory.q[row] = q;
  memory.n[row] = static_cast<int16_t>(n);
}

// Of the rows decided last, which the other warp has not added yet, what the first make of row `row` when it
// is not near to them; lanes with equal lane % kBegun ask for the same row.
__device__ inline float LatestFar(const Block& block, const ColumnMemory& memory, unsigned decided,
                                  unsigned row) {
  float sum = 0;
#pragma unroll
  for (unsigned r = block.lane / kBegun; r < kBegun; r += kGroups)
    sum = fmaf(-memory.error[decided + r], block.memory.v.far[FarOf(decided + r, row)], sum);
#pragma unroll
  for (unsigned reach = kBegun; reach < kWarp; reach *= 2) sum += __shfl_xor_sync(kAllLanes, sum, reach);
  return sum;
}

// Searches column begin + p.
__device__ inline void SearchColumn(const Block& block, const Role& me, const SearchFacts& facts, int p,
                                    ColumnMemory& memory) {
  TileMemory& tile = block.memory;
  const unsigned lane = block.lane, rows = block.rows, window = static_cast<unsigned>(block.stage.window),
                 open = window + static_cast<unsigned>(block.stage.ahead);
  const float reciprocal = __frcp_rn(facts.u_here);
  const char* prices = block.stage.prices - size_t{kMagicBits} * sizeof(float2);
  asm("" : "+l"(prices));  // stays in one register: the compiler would subtract again in every row
  Survivors ways;
  ways.Begin(me);
  unsigned decided = 0, latest = 0;
  bool fresh = false;  // rows [latest, decided) have just been decided
  for (unsigned base = 0; base < rows; base += kBegun) {
    const unsigned now = min(base + kBegun, rows), row = base + lane % kBegun, place = row % kRing;
    WaitFor(tile.prepared[p], now);
    float weight = memory.row[place].z, besides = memory.besides[place];
    if (fresh && open == kMostOpen) besides += LatestFar(block, memory, latest, row);
    fresh = false;
    if (p > 0) {
      WaitFor(tile.done[p - 1], now);
      weight = fmaf(-facts.u_last, tile.errors[row][p - 1], weight);
    }
    if (lane < kBegun) {
      memory.w[row] = weight;
      memory.row[place].z = weight + besides;
    }
    __syncwarp();
    float4 next[2] = {memory.row[base % kRing], memory.row[(base + 1) % kRing]};
    for (unsigned r = base; r < base + kBegun; r += kLanes) {
      const Group group = GroupOf(me, memory, tile.v, r, lane);
      const unsigned left = r < now ? now - r : 0;
      float errors[kLanes];
      if (left >= kLanes) {
        Step<0>(me, group, prices, next, errors, ways);
        Step<1>(me, group, prices, next, errors, ways);
        Step<2>(me, group, prices, next, errors, ways);
        Step<3>(me, group, prices, next, errors, ways);
        EndGroup(group, lane, errors, ways);
        continue;
      }
      if (left > 0) Step<0>(me, group, prices, next, errors, ways);
      if (left > 1) Step<1>(me, group, prices, next, errors, ways);
      if (left > 2) Step<2>(me, group, prices, next, errors, ways);
    }
    KeepWays(me, base, now, lane, memory, ways);
    if (now != rows && now < decided + open) continue;
    const unsigned upto = now == rows ? rows : decided + window;
    const uint32_t states = Decide(me, upto, now, ways);
    for (unsigned first = decided; first < upto; first += kWarp) {
      const unsigned end = min(first + kWarp, upto), mine = min(first + lane, end - 1);
      const Found found = FoundOf(memory, mine, now, states);
      const float4 of_row = memory.row[mine % kRing];
      const Choice choice = Choose(LevelsOf(found.quantiser, found.parity), of_row, found.value, prices);
      const int magnitude =
          choice.level > 0 ? static_cast<int>(0.5f * (choice.level + static_cast<float>(found.quantiser)))
                           : 0;
      const float size = magnitude == 0 ? 0.0f : choice.level * of_row.x;
      const float q = found.value < 0 ? -size : size;
      Give(block, memory, p, mine, first + lane < end, found.value < 0 ? -magnitude : magnitude, q,
           found.value - q, reciprocal);
      Say(tile.done[p], end);
    }
    latest = decided, decided = upto, fresh = true;
  }
}

// The same without a trellis: every row is rounded when it is its turn.
__device__ inline void RoundColumn(const Block& block, const SearchFacts& facts, int p,
                                   ColumnMemory& memory) {
  TileMemory& tile = block.memory;
  const unsigned lane = block.lane, rows = block.rows;
  const float reciprocal = __frcp_rn(facts.u_here);
  float later[kParts] = {};  // what errors have made of rows part kWarp + lane
  for (unsigned base = 0; base < rows; base += kWarp) {
    // Lanes beyond the tile compute, for nobody, with its last row.
    const unsigned now = min(base + kWarp, rows), row = base + lane, part = base / kWarp,
                   place = min(row, now - 1) % kRing;
    WaitFor(tile.prepared[p], now);
    const float4 of_row = memory.row[place];
    float weight = of_row.z, value = memory.besides[place] + Pick(later, part);
    if (p > 0) {
      WaitFor(tile.done[p - 1], now);
      weight = fmaf(-facts.u_last, tile.errors[row][p - 1], weight);
    }
    memory.w[row] = weight;
    value += weight;
    const char* prices = block.stage.prices + __float_as_uint(of_row.w);
    const auto v_of = [&](unsigned r, unsigned c) {  // V_rc / V_rr
      if (c <= r) return 0.0f;
      if (c >= FirstFar(r)) return tile.v.far[FarOf(r, c)];
      return tile.v.near[r][c % kLanes][c / kLanes - (r + 1) / kLanes];
    };
    for (unsigned r = base; r < now; ++r) {
      const int n = Rounded(value, of_row.y, prices, block.stage.plain);
      const float e =
          __shfl_sync(kAllLanes, value - static_cast<float>(n) * of_row.x, static_cast<int>(r % kWarp));
      value = fmaf(-e, v_of(r, row), value);
#pragma unroll
      for (unsigned k = 1; k < kParts; ++k) {
        if (k > part) later[k] = fmaf(-e, v_of(r, k * kWarp + lane), later[k]);
      }
    }
    const int n = Rounded(value, of_row.y, prices, block.stage.plain);
    const float q = static_cast<float>(n) * of_row.x;
    Give(block, memory, p, row, row < now, n, q, value - q, reciprocal);
    Say(tile.done[p], now);
  }
}

// What preparing a column needs of it; of rows part kWarp + lane.
struct ColumnFacts {
  float u[kPanel / kWarp];  // U above it in the panel, rows i kWarp + lane, zeros from the last column on
  float u_here;             // U_pp
  float scale;
  int entropy_class;
  float work[kParts], above[kParts];  // the weights, and what tiles above make of them
};
// Column begin + p.
__device__ inline ColumnFacts FactsOf(const Block& block, int p) {
  const Stage& stage = block.stage;
  const float* u = stage.u + static_cast<size_t>(block.begin) * stage.u_stride + block.begin + p;
  ColumnFacts facts;
#pragma unroll
  for (int i = 0; i < kPanel / kWarp; ++i) {
    const int row = i * kWarp + static_cast<int>(block.lane);
    facts.u[i] = row < p - 1 ? __ldg(u + static_cast<size_t>(row) * stage.u_stride) : 0.0f;
  }
  facts.u_here = __ldg(u + static_cast<size_t>(p) * stage.u_stride);
  facts.scale = __ldg(stage.col_scale + block.begin + p);
  facts.entropy_class = __ldg(block.tile.col_class + block.begin + p);
  const bool from_above = stage.above != nullptr && block.tile.turn > 0;
#pragma unroll
  for (unsigned part = 0; part < kParts; ++part) {
    const size_t slot = block.first_slot + part * kWarp + block.lane;
    facts.work[part] = stage.work[static_cast<size_t>(block.begin + p) * stage.slots + slot];
    facts.above[part] = from_above ? stage.above[static_cast<size_t>(p) * stage.slots + slot] : 0.0f;
  }
  return facts;
}

// Rows [first, end) of column begin + p are decided, kWarp of them at most: stores and counts them.
__device__ inline void CountRows(const Block& block, const ColumnMemory& memory, int p, unsigned first,
                                 unsigned end, double square) {
  TileMemory& tile = block.memory;
  const Stage& stage = block.stage;
  if (p > 0) WaitFor(tile.counted[p - 1], end);  // sums grow column by column
  if (const unsigned row = first + block.lane; row < end) {
    const float w = memory.w[row], q = memory.q[row], error = memory.error[row], change = tile.errors[row][p];
    const int n = memory.n[row];
    const size_t at = static_cast<size_t>(block.begin + p) * stage.slots + block.first_slot + row;
    stage.work[at] = q;
    stage.n[at] = static_cast<int16_t>(n);
    stage.errors[static_cast<size_t>(block.together + p) * stage.slots + block.first_slot + row] = change;
    if (stage.row_errors != nullptr && block.tile.v != nullptr)
      stage.row_errors[at] = error / tile.row[row].w;
    atomicAdd(&tile.widths[32 - __clz(abs(n))], 1u);
    tile.sums[0][row] += static_cast<double>(error) * error * square;
    tile.sums[1][row] += static_cast<double>(change) * change;
    tile.sums[2][row] += static_cast<double>(w) * w * square;
  }
  Say(tile.counted[p], end);
}

// Prepares the rows of column begin + p for its search, and counts them.
template <bool kTrellis>
__device__ inline void PrepareColumn(const Block& block, const ColumnFacts& facts, int p,
                                     ColumnMemory& memory) {
  TileMemory& tile = block.memory;
  const Stage& stage = block.stage;
  const unsigned lane = block.lane, rows = block.rows, window = static_cast<unsigned>(stage.window),
                 open = window + static_cast<unsigned>(stage.ahead);
  const float inverse_scale = __frcp_rn(facts.scale), reciprocal = __frcp_rn(facts.u_here);
  const double square = static_cast<double>(reciprocal) * reciprocal;
#pragma unroll
  for (int i = 0; i < kPanel / kWarp; ++i) memory.u[i * kWarp + lane] = facts.u[i];
  __syncwarp();
  float far[kParts] = {};  // what errors of decided rows have made of rows that are not near to them
  // Rows that the search has decided before it comes to some row, that are in `far`, and in the sums.
  unsigned decided = 0, reached = 0, counted = 0;
  const auto reach = [&](unsigned upto) {
    while (reached < upto) {
      const unsigned first = reached, end = min(first + kWarp, upto);
      WaitFor(tile.done[p], end);
      const float error = memory.error[min(first + lane, end - 1)];
      for (unsigned r = first; r < end; r += kBegun) {
        const unsigned half = r / kHalf;
        if (half == 0) ReachFar<0>(tile.v, first, r, lane, error, far);
        if (half == 1) ReachFar<1>(tile.v, first, r, lane, error, far);
        if (half == 2) ReachFar<2>(tile.v, first, r, lane, error, far);
        if (half == 3) ReachFar<3>(tile.v, first, r, lane, error, far);
        if (half == 4) ReachFar<4>(tile.v, first, r, lane, error, far);
      }
      reached = end;
    }
  };
  const auto count = [&](unsigned upto) {
    for (; counted < upto; counted = min(counted + kWarp, upto)) {
      const unsigned end = min(counted + kWarp, upto);
      WaitFor(tile.done[p], end);
      CountRows(block, memory, p, counted, end, square);
    }
  };
  for (unsigned base = 0; base < rows; base += kBegun) {
    // Not what is decided right before these rows: LatestFar. The search has then come to within kMostOpen
    // rows of these, and what it needs of ColumnMemory::row is still there.
    const unsigned before = decided;
    if constexpr (kTrellis) reach(before);
    if (base >= decided + open) decided += window;
    const unsigned row = base + lane % kBegun, group = lane / kBegun, part = base / kWarp,
                   now = min(base + kBegun, rows);
    const float weight = Pick(facts.work, part), besides = Pick(facts.above, part) + Pick(far, part);
    const float4 of_row = tile.row[row];
    const int entropy_class =
        min(max(__float_as_int(of_row.z) + facts.entropy_class, stage.first_class), stage.last_class);
    // The last column's errors come last; those of the others are there.
    if (p > 1) WaitFor(tile.done[p - 2], now);
    const auto* errors = reinterpret_cast<const float4*>(tile.errors[row]) + group;
    const auto* u = reinterpret_cast<const float4*>(memory.u) + group;
    float sums[4] = {};
    for (int i = 0; i < p - 1; i += 4 * kGroups) {  // beyond, factors are zeros
      const float4 e = errors[i / 4], f = u[i / 4];
      sums[0] = fmaf(f.x, e.x, sums[0]), sums[1] = fmaf(f.y, e.y, sums[1]);
      sums[2] = fmaf(f.z, e.z, sums[2]), sums[3] = fmaf(f.w, e.w, sums[3]);
    }
    float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#pragma unroll
    for (unsigned reach = kBegun; reach < kWarp; reach *= 2) sum += __shfl_xor_sync(kAllLanes, sum, reach);
    if (group == base % kWarp / kBegun) {  // these lanes have the row's weight
      memory.row[row % kRing] = make_float4(
          of_row.x * facts.scale, of_row.y * inverse_scale, weight - sum,
          __uint_as_float(static_cast<uint32_t>(entropy_class - stage.first_class) * kClassBytes));
      memory.besides[row % kRing] = besides;
    }
    Say(tile.prepared[p], now);
    count(before);  // nobody waits for it
  }
  count(rows);
}

// Fixes the columns of a panel in tiles first_tile + blockIdx.x: the tiles of turn t have panel step - t.
template <bool kTrellis>
__global__ void __launch_bounds__(2 * kMostPairs * kWarp, 2)
    SolvePanelOfTile(Stage stage, int first_tile, int step) {
  extern __shared__ float4 shared_memory[];
  TileMemory& tile_memory = *reinterpret_cast<TileMemory*>(shared_memory);
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, threads = blockDim.x,
                 thread = threadIdx.x;
  const int pairs = static_cast<int>(threads / (2 * kWarp)), pair = static_cast<int>(warp) % pairs;
  ColumnMemory& memory = reinterpret_cast<ColumnMemory*>(&tile_memory + 1)[pair];
  const int place = first_tile + static_cast<int>(blockIdx.x);
  const Tile tile = stage.tiles[place];
  const size_t slots = stage.slots, first_slot = static_cast<size_t>(place) * kTile;
  const int begin = (step - tile.turn) * kPanel, columns = min(kPanel, stage.cols - begin);
  const auto rows = static_cast<unsigned>(tile.rows);
  const Block block = {
      stage, tile, tile_memory, first_slot, begin, (step - tile.turn) % kPanelsTogether * kPanel, rows, lane};

  for (unsigned i = thread; i < kTile; i += threads) {
    for (int k = 0; k < kSums; ++k) tile_memory.sums[k][i] = stage.sums[k * slots + first_slot + i];
    const float scale = stage.row_scale[first_slot + i];
    const float v_here = tile.v != nullptr && i < rows ? tile.v[i * tile.v_stride + i] : 1.0f;
    tile_memory.row[i] =
        make_float4(scale, 1.0f / scale, __int_as_float(stage.row_class[first_slot + i]), v_here);
  }
  for (unsigned i = thread; i < kTile * kPitch; i += threads) tile_memory.errors[0][i] = 0;
  for (unsigned i = thread; i < kMostWidths; i += threads) tile_memory.widths[i] = 0;
  for (unsigned i = thread; i < kPanel; i += threads)
    tile_memory.prepared[i] = tile_memory.done[i] = tile_memory.counted[i] = 0;
  {
    const auto* from = reinterpret_cast<const float4*>(stage.v + place);
    auto* to = reinterpret_cast<float4*>(&tile_memory.v);
#pragma unroll 4
    for (unsigned i = thread; i < sizeof(TileOfV) / sizeof(float4); i += threads) to[i] = __ldg(from + i);
  }
  __syncthreads();

  // What a column needs is read while the one before it is worked on.
  if (static_cast<int>(warp) < pairs) {
    const Role me = RoleOf(static_cast<int>(lane));
    SearchFacts next = SearchFactsOf(block, min(pair, columns - 1));
    for (int p = pair; p < columns; p += pairs) {
      const SearchFacts facts = next;
      if (p + pairs < columns) next = SearchFactsOf(block, p + pairs);
      if constexpr (kTrellis) {
        SearchColumn(block, me, facts, p, memory);
      } else {
        RoundColumn(block, facts, p, memory);
      }
    }
  } else {
    ColumnFacts next = FactsOf(block, min(pair, columns - 1));
    for (int p = pair; p < columns; p += pairs) {
      const ColumnFacts facts = next;
      if (p + pairs < columns) next = FactsOf(block, p + pairs);
      PrepareColumn<kTrellis>(block, facts, p, memory);
    }
  }
  __syncthreads();
  for (unsigned i = thread; i < kTile; i += threads) {
    for (int k = 0; k < kSums; ++k) stage.sums[k * slots + first_slot + i] = tile_memory.sums[k][i];
  }
  for (unsigned i = thread; i < kMostWidths; i += threads)
    stage.widths[static_cast<size_t>(place) * kMostWidths + i] += tile_memory.widths[i];
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
  const size_t pairs =
      std::min<size_t>(kMostPairs, (static_cast<size_t>(most) - sizeof(TileMemory)) / sizeof(ColumnMemory));
  return {trellis ? SolvePanelOfTile<true> : SolvePanelOfTile<false>,
          static_cast<unsigned>(pairs * 2 * kWarp), sizeof(TileMemory) + pairs * sizeof(ColumnMemory)};
}

void SolvePanel(Device device, const PanelKernel& kernel, const Stage& stage, size_t first, size_t last,
                size_t step) {
  Launch(device, kernel.kernel, Blocks(last - first, 1), kernel.threads, kernel.shared_bytes, stage,
         static_cast<int>(first), static_cast<int>(step));
}

}  // namespace mica::cuda::trellis
