// The cheapest path of a column through the rows of a tile, by one warp: included by *_cuda.cu only.
//
// A lane is a row of each part, where what survivors' errors have made of it is kept, and a pair (state,
// predecessor), where the choice is made. Rows are decided a few at a time, some rows behind those that are searched,
// so that the next column can follow: its rows feel the errors of this one.
#pragma once

#include <cstdint>

#include "device/cuda_kernel.h"
#include "ops/trellis/panel_cuda.h"

namespace mica::cuda::trellis {

// Added to and taken from a number below 2^22 this rounds it to an integer, which are the lowest bits of the
// sum.
inline constexpr float kMagic = 12582912.0f;
inline constexpr uint32_t kMagicBits = 0x4B400000u;
// Levels beyond four times this have no integers; sizes are cut there, so that sums of squares stay exact.
inline constexpr float kMostQuarters = 16000.0f;

// The machine of TrellisOf(8) from behind: a state is reached from either of two, by integers of one parity
// each.
__host__ __device__ constexpr int Predecessor(int state, int pick) {
  constexpr int of[kStates][2] = {{0, 4}, {2, 6}, {0, 4}, {2, 6}, {3, 5}, {1, 7}, {3, 5}, {1, 7}};
  return of[state][pick];
}
__host__ __device__ constexpr int ParityOf(int state, int pick) {
  constexpr int of[kStates][2] = {{0, 1}, {0, 1}, {1, 0}, {1, 0}, {1, 0}, {0, 1}, {0, 1}, {1, 0}};
  return of[state][pick];
}
// The first lane that tries paths from a state: lanes 4 s and 4 s + 2 (and, the same again, those behind
// them) try those from the predecessors of s.
__host__ __device__ constexpr int LaneFrom(int state) {
  for (int lane = 0; lane < kWarp; lane += 2) {
    if (Predecessor(lane / 4, lane / 2 % 2) == state) return lane;
  }
  return -1;
}

// Rows of a tile that a lane has.
inline constexpr int kParts = kTile / kWarp;

// Of a warp: row r of the tile stands at r % kWarp.
struct alignas(16) ColumnMemory {
  float4 row[kWarp];            // step, 1 / step, 1 / V_rr, bytes from prices to the class
  float2 path[kWarp][kStates];  // by the state behind the row: its value and level on the way there
  float fed[2][kStates];        // by state before a row: what errors have made of the row behind it
  float error[2][kStates];      // by state behind a row: its error over V_rr
  float u[kPanel];              // the part of U's column that is in the panel: not for the search
};

// V right of the diagonal, zeros elsewhere: of rows [part kWarp, (part + 1) kWarp) the columns from there on.
__host__ __device__ constexpr int WidthOfPart(int part) { return kWarp * (kParts - part); }
__host__ __device__ constexpr int StartOfPart(int part) {
  return part == 0 ? 0 : StartOfPart(part - 1) + kWarp * WidthOfPart(part - 1);
}
inline constexpr int kValuesOfV = StartOfPart(kParts) + 4;  // a row's next neighbour may lie behind the last

// What a lane tries: the way into a state from one of its predecessors.
struct Role {
  int from, to, pick;
  int before[2];   // predecessors of `from`
  int lane_of_to;  // LaneFrom(to)
  float shift;     // (quantiser - 2 parity) / 4
  float lowest;    // 2 parity - quantiser: the level of the smallest integer
  uint32_t table;  // bytes from a class to its prices, less what kMagicBits adds
};

__device__ inline Role RoleOf(int lane) {
  Role role = {};
  role.to = lane / 4;
  role.pick = lane / 2 % 2;
  int parity = 0;
#pragma unroll
  for (int s = 0; s < kStates; ++s) {
    if (s != role.to) continue;
    role.from = role.pick != 0 ? Predecessor(s, 1) : Predecessor(s, 0);
    parity = role.pick != 0 ? ParityOf(s, 1) : ParityOf(s, 0);
    role.lane_of_to = LaneFrom(s);
  }
#pragma unroll
  for (int s = 0; s < kStates; ++s) {
    if (s != role.from) continue;
    role.before[0] = Predecessor(s, 0);
    role.before[1] = Predecessor(s, 1);
  }
  const int quantiser = role.from & 1;
  role.shift = 0.25f * static_cast<float>(quantiser - 2 * parity);
  role.lowest = static_cast<float>(2 * parity - quantiser);
  role.table = static_cast<uint32_t>(2 * quantiser + parity) * kPriceBytes -
               kMagicBits * static_cast<uint32_t>(sizeof(float2));
  return role;
}

// Eight numbers of three bits, a byte each.
struct StateMap {
  uint32_t low, high;
  __device__ int operator[](int state) const {
    return static_cast<int>(__byte_perm(low, high, static_cast<uint32_t>(state)) & 7);
  }
};
// The same, four bits each.
__device__ inline uint32_t Packed(const StateMap& map) {
  return __byte_perm(map.low | map.low >> 4, map.high | map.high >> 4, 0x6420);
}

// The ways through the rows so far, one to each state. A lane has what belongs to its rows, and to me.from.
struct Survivors {
  float fed[kParts][kStates];  // what errors on the way to a state have made of row part kWarp + lane
  float total, next;           // of the way to me.from: its cost, what its errors have made of the row that comes
  uint32_t picks;              // at the lane's latest row: LaneFrom(s) is set where s is reached by pick 1

  // Before the first row.
  __device__ void Begin(const Role& me, ColumnMemory& memory) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
#pragma unroll
      for (int s = 0; s < kStates; ++s) fed[part][s] = 0;
    }
    total = me.from == 0 ? 0.0f : kNever;
    next = 0;
    picks = 0;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    if (lane < kStates) memory.fed[0][lane] = 0;
  }
};

// Rows [first, last) of a part (row part kWarp + r of the tile is r here). x: of the lane's row, its value without
// errors of rows above. v: of the whole tile. All lanes call it, when memory.row is there for all of them.
template <int kPart>
__device__ __forceinline__ void Follow(const Role& me, ColumnMemory& memory, const float* v, int first, int last,
                                       const char* prices, float x, Survivors& ways) {
  constexpr int kWidth = WidthOfPart(kPart);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  v += StartOfPart(kPart) + first * kWidth;
  float4 row = memory.row[first];
  float x_here = __shfl_sync(kAllLanes, x, first), v_next = v[first + 1];
#pragma unroll 2
  for (int r = first; r < last; ++r, v += kWidth) {
    const float next[2] = {memory.fed[r & 1][me.before[0]], memory.fed[r & 1][me.before[1]]};
    const float value = ways.next + x_here;
    // The nearest level of this quantiser and parity, and the one below it.
    const float step = copysignf(row.x, value);
    const float quarters = fminf(fmaf(fabsf(value), 0.25f * row.y, me.shift), kMostQuarters);
    const float magic = quarters + kMagic, k = magic - kMagic;
    const uint32_t index = min(__float_as_uint(magic), kMagicBits + kPriced - 1);
    const uint32_t offset =
        __float_as_uint(row.w) + me.table + index * static_cast<uint32_t>(sizeof(float2));
    const float2 price = __ldg(reinterpret_cast<const float2*>(prices + offset));
    // What the row behind it needs, and V, are read while that comes.
    const float inverse_diagonal = row.z;
    const float size = fminf(fabsf(value) * row.y, 4.0f * kMostQuarters);
    float v_here[kParts];
#pragma unroll
    for (int later = kPart; later < kParts; ++later) v_here[later] = v[(later - kPart) * kWarp + lane];
    const float v_now = v_next;
    if (r + 1 < last) {
      row = memory.row[r + 1];
      v_next = v[kWidth + r + 2];
      x_here = __shfl_sync(kAllLanes, x, r + 1);
    }
    const float near = fmaf(4.0f, k, me.lowest);
    const float level0 = fmaxf(near, 0.0f), level1 = fmaxf(near - 4.0f, 0.0f);
    const float rest0 = fmaf(-level0, step, value), rest1 = fmaf(-level1, step, value);
    const float d0 = size - level0, d1 = size - level1;
    const float cost0 = fmaf(d0, d0, price.x), cost1 = fmaf(d1, d1, price.y);
    const bool lower = cost1 < cost0;
    const float cost = ways.total + fminf(cost0, cost1);
    const float error = (lower ? rest1 : rest0) * inverse_diagonal;
    // Which way into `from` is cheaper, for the row to come.
    const float into0 = __shfl_sync(kAllLanes, cost, 4 * me.from),
                into1 = __shfl_sync(kAllLanes, cost, 4 * me.from + 2);
    const float error0 = __shfl_sync(kAllLanes, error, 4 * me.from),
                error1 = __shfl_sync(kAllLanes, error, 4 * me.from + 2);
    const bool second = into1 < into0;
    const float error_into = second ? error1 : error0;
    const uint32_t picks = __ballot_sync(kAllLanes, second);
    memory.error[r & 1][me.from] = error_into;
    if (static_cast<int>(picks >> me.lane_of_to & 1) == me.pick)
      memory.path[r][me.to] = make_float2(value, lower ? level1 : level0);
    if (lane == r) ways.picks = picks;
    ways.total = fminf(into0, into1);
    ways.next = fmaf(-error_into, v_now, second ? next[1] : next[0]);
    __syncwarp();
    // Beside that, what the errors make of all rows to come.
    const float4 e0 = *reinterpret_cast<const float4*>(memory.error[r & 1]),
                 e1 = *reinterpret_cast<const float4*>(memory.error[r & 1] + 4);
    const float e[kStates] = {e0.x, e0.y, e0.z, e0.w, e1.x, e1.y, e1.z, e1.w};
#pragma unroll
    for (int later = kPart; later < kParts; ++later) {
      float after[kStates];
#pragma unroll
      for (int s = 0; s < kStates; ++s) {
        const bool from_second = (picks >> LaneFrom(s) & 1) != 0;
        after[s] = fmaf(-e[s], v_here[later],
                        from_second ? ways.fed[later][Predecessor(s, 1)] : ways.fed[later][Predecessor(s, 0)]);
      }
#pragma unroll
      for (int s = 0; s < kStates; ++s) ways.fed[later][s] = after[s];
    }
    const auto hand_on = [&](const float(&from)[kStates]) {
      float* to = memory.fed[(r + 1) & 1];
      *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
      *reinterpret_cast<float4*>(to + 4) = make_float4(from[4], from[5], from[6], from[7]);
    };
    if (lane == r + 2) hand_on(ways.fed[kPart]);
    if constexpr (kPart + 1 < kParts) {
      if (lane == r + 2 - kWarp) hand_on(ways.fed[kPart + 1]);
    }
    __syncwarp();
  }
}

// What has been decided for the lane's latest row.
struct Found {
  float value, level;  // of the row when it was its turn; |level| in steps
  int quantiser;
};

// Decides rows [decided, upto) of the tile when rows before `now` are searched, at most kWarp of them from `decided`
// on: they stay as they are on the cheapest way so far, and ways that part from it before `upto` are no more. What it
// returns holds for lanes with such a row.
__device__ inline Found Decide(const Role& me, const ColumnMemory& memory, int decided, int upto, int now,
                               Survivors& ways) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  // Costs are not negative: their bits are in the same order.
  const uint32_t least = __reduce_min_sync(kAllLanes, __float_as_uint(ways.total));
  const uint32_t cheapest = __ballot_sync(kAllLanes, __float_as_uint(ways.total) == least);
  const int state = __shfl_sync(kAllLanes, me.from, __ffs(static_cast<int>(cheapest)) - 1);
  // The way back: a row maps the state behind it to the one before it.
  StateMap own = {};
#pragma unroll
  for (int s = 0; s < kStates; ++s) {
    const bool from_second = (ways.picks >> LaneFrom(s) & 1) != 0;
    const auto before = static_cast<uint32_t>(from_second ? Predecessor(s, 1) : Predecessor(s, 0));
    (s < 4 ? own.low : own.high) |= before << (8 * (s % 4));
  }
  // `map` leads from behind the last row to behind the lane's, which lies `age` rows before.
  const int age = (now - 1 - lane) & (kWarp - 1);
  StateMap map = {__shfl_sync(kAllLanes, own.low, (lane + 1) % kWarp),
                  __shfl_sync(kAllLanes, own.high, (lane + 1) % kWarp)};
  if (age == 0) map = {0x03020100u, 0x07060504u};
  for (int reach = 1; reach < now - decided; reach *= 2) {
    const uint32_t later = __shfl_sync(kAllLanes, Packed(map), (lane + reach) % kWarp);
    if (age >= reach)
      map = {__byte_perm(map.low, map.high, later & 0xFFFF), __byte_perm(map.low, map.high, later >> 16)};
  }
  const uint32_t behind = __shfl_sync(kAllLanes, Packed(map), (upto - 1) % kWarp);
  const bool stays = (behind >> (4 * me.from) & 7) == (behind >> (4 * state) & 7);
  ways.total = stays ? ways.total - __uint_as_float(least) : kNever;
  const int after = map[state], before = own[after];
  const float2 way = memory.path[lane][after];
  return {way.x, way.y, before & 1};
}

// As StepChooser::Round.
__device__ inline int Rounded(float value, float inverse, const char* prices, bool plain) {
  const float x = fminf(fabsf(value) * inverse, kBeyondAll);
  const int nearest = static_cast<int>(fminf(x + 0.5f, static_cast<float>(kMaxInteger)));
  int best = nearest;
  if (!plain) {
    const auto price = [&](int m) {
      const uint32_t offset = static_cast<uint32_t>(m & 1) * kPriceBytes +
                              static_cast<uint32_t>(min(m / 2, kPriced - 1)) * uint32_t{sizeof(float2)};
      return __ldg(reinterpret_cast<const float*>(prices + offset));
    };
    best = 0;
    float least = fmaf(x, x, price(0));
    for (int m = max(1, nearest - 1); m <= nearest; ++m) {
      const float d = x - static_cast<float>(m);
      const float cost = fmaf(d, d, price(m));
      if (cost < least) least = cost, best = m;
    }
  }
  return value < 0 ? -best : best;
}

}  // namespace mica::cuda::trellis
