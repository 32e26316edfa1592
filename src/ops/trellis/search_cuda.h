// The cheapest path of a column through the rows of a tile, by one warp: included by *_cuda.cu only.
//
// Four lanes are a state. They keep what the errors on the way to it have made of the rows that come, a
// quarter of them each, and two of them each try one way on from it. Rows are decided some at a time, some
// rows behind those that are searched, so that the next column can follow: its rows feel the errors of this
// one.
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
// Of the first way into each state, four bits a state: the state before it, and the parity.
constexpr uint32_t ByState(int (*of)(int, int)) {
  uint32_t all = 0;
  for (int s = 0; s < kStates; ++s) all |= static_cast<uint32_t>(of(s, 0)) << (4 * s);
  return all;
}
inline constexpr uint32_t kFirstBefore = ByState(Predecessor), kFirstParity = ByState(ParityOf);

// Rows of a column of which is kept what their decision needs; row r of the tile stands at r % kRing.
inline constexpr unsigned kRing = 64;
static_assert(kMostOpen + kBegun <= kRing && kMostOpen % kBegun == 0);

// Of a column: what its two warps tell each other, and what the search keeps.
struct alignas(16) ColumnMemory {
  // At r % kRing: step, 1 / step, weight without errors of the last column, bytes from prices to the class;
  // the third becomes the value without errors of near rows. besides: what is added to it.
  float4 row[kRing];
  float besides[kRing];
  float value[kRing][kStates][2];  // of the row when it was its turn, by the state before it and its parity
  uint32_t trail[kRing / kBegun][kStates];  // Survivors::trail behind each kBegun rows
  // By row of the tile: the weight when its column was fixed, and of decided rows what is left of their
  // value, the weight as stored, and its integer.
  float w[kTile], error[kTile], q[kTile];
  int16_t n[kTile];
  float u[kPanel];  // the part of U's column that is in the panel but for the last column
};

// The levels of one quantiser and parity.
struct Levels {
  float shift;     // (quantiser - 2 parity) / 4
  float lowest;    // 2 parity - quantiser: the level of the smallest integer
  uint32_t table;  // bytes from a class to its prices
};
__device__ inline Levels LevelsOf(int quantiser, int parity) {
  return {0.25f * static_cast<float>(quantiser - 2 * parity), static_cast<float>(2 * parity - quantiser),
          static_cast<uint32_t>(2 * quantiser + parity) * kPriceBytes};
}

// What a lane does for its state: it tries one parity, and finds the better way into it.
struct Role {
  int state, parity;
  int from[2];     // first lanes of the states before it
  int mine_of[2];  // lanes of those that keep the same rows as this one
  int try_of[2];   // lanes that try the ways from there
  bool tries;      // others do the same as one that does
  Levels levels;
};

__device__ inline Role RoleOf(int lane) {
  Role role = {};
  role.state = lane / kLanes;
  role.parity = lane % 2;
#pragma unroll
  for (int s = 0; s < kStates; ++s) {
    if (s != role.state) continue;
#pragma unroll
    for (int pick = 0; pick < 2; ++pick) {
      role.from[pick] = Predecessor(s, pick) * kLanes;
      role.mine_of[pick] = Predecessor(s, pick) * kLanes + lane % kLanes;
      role.try_of[pick] = Predecessor(s, pick) * kLanes + ParityOf(s, pick);
    }
  }
  role.tries = lane % kLanes < 2;
  role.levels = LevelsOf(role.state & 1, role.parity);
  return role;
}

// The ways through the rows so far, one to each state, of which a lane has its own.
struct Survivors {
  float fed[kNear];   // what errors on the way have made of the lane's rows to come
  float total, next;  // its cost, what its errors have made of the row that comes
  // States on the way, three bits each, the latest lowest: before each of the latest rows; and before each
  // kBegun of them.
  uint32_t trail, origins;

  // Before the first row.
  __device__ void Begin(const Role& me) {
#pragma unroll
    for (float& value : fed) value = 0;
    total = me.state == 0 ? 0.0f : kNever;
    next = 0;
    trail = origins = 0;
  }
};

// Where a lane finds what belongs to a group of four rows.
struct Group {
  const float4* near;        // of the first row, in TileOfV
  const float* next_near;    // the same of the lane that has the row behind it
  const float4 *row, *next;  // in ColumnMemory, and of the group behind it
  float* value;              // of its way on
};
__device__ inline Group GroupOf(const Role& me, ColumnMemory& memory, const TileOfV& v, unsigned r,
                                unsigned lane) {
  const unsigned here = r % kRing;
  return {reinterpret_cast<const float4*>(v.near[r][lane % kLanes]), v.near[r][0], memory.row + here,
          memory.row + (here + kLanes) % kRing, &memory.value[here][me.state][me.parity]};
}

// The cheapest of some levels.
struct Choice {
  float level, error, cost;  // |level| in steps
};
// row: its ColumnMemory::row; prices: kMagicBits float2 before Stage::prices.
__device__ __forceinline__ Choice Choose(const Levels& levels, const float4& row, float value,
                                         const char* prices) {
  // The nearest level of this quantiser and parity, and the one below it.
  const float step = copysignf(row.x, value);
  const float quarters = fmaf(fabsf(value), 0.25f * row.y, levels.shift);
  const uint32_t index = min(__float_as_uint(quarters + kMagic), kMagicBits + kPriced - 1);
  const auto* of_class = reinterpret_cast<const float2*>(prices + (__float_as_uint(row.w) + levels.table));
  const float2 price = __ldg(of_class + index);
  const float k = (fminf(quarters, kMostQuarters) + kMagic) - kMagic;
  const float size = fminf(fabsf(value) * row.y, 4.0f * kMostQuarters);
  const float nearest = fmaf(4.0f, k, levels.lowest);
  const float level0 = fmaxf(nearest, 0.0f), level1 = fmaxf(nearest - 4.0f, 0.0f);
  const float rest0 = fmaf(-level0, step, value), rest1 = fmaf(-level1, step, value);
  const float d0 = size - level0, d1 = size - level1;
  const float cost0 = fmaf(d0, d0, price.x), cost1 = fmaf(d1, d1, price.y);
  const bool lower = cost1 < cost0;
  return {lower ? level1 : level0, lower ? rest1 : rest0, fminf(cost0, cost1)};
}

// Row kPlace of the group. row: its ColumnMemory::row and that of the row behind it, which go on by one;
// prices: as Choose takes them; errors: of the group's rows before it on the way to the lane's state, and
// then its own. Survivors::fed is brought up to date for this group and the next, EndGroup does the others.
template <int kPlace>
__device__ __forceinline__ void Step(const Role& me, const Group& group, const char* prices, float4 (&row)[2],
                                     float (&errors)[kLanes], Survivors& ways) {
  const float2 near = *reinterpret_cast<const float2*>(group.near + kPlace * (kLanes * kNear / 4));
  constexpr int kNextLane = (kPlace + 1) % kLanes;
  constexpr bool kLast = kPlace == kLanes - 1;
  const float v_next = group.next_near[(kPlace * kLanes + kNextLane) * kNear];
  const float4 here = row[0];
  row[0] = row[1];
  row[1] = kPlace + 2 < kLanes ? group.row[kPlace + 2] : group.next[(kPlace + 2) % kLanes];
  // The row behind it before this row's errors, on both ways into the state.
  const float fed_next = ways.fed[kLast ? 1 : 0];
  const float next0 = __shfl_sync(kAllLanes, fed_next, me.from[0] + kNextLane),
              next1 = __shfl_sync(kAllLanes, fed_next, me.from[1] + kNextLane);
  const float value = ways.next + here.z;
  const Choice choice = Choose(me.levels, here, value, prices);
  const float cost = ways.total + choice.cost;
  // Which way into the state is cheaper.
  const float into0 = __shfl_sync(kAllLanes, cost, me.try_of[0]),
              into1 = __shfl_sync(kAllLanes, cost, me.try_of[1]);
  const float error0 = __shfl_sync(kAllLanes, choice.error, me.try_of[0]),
              error1 = __shfl_sync(kAllLanes, choice.error, me.try_of[1]);
  if (me.tries) group.value[kPlace * (kStates * 2)] = value;
  const bool second = into1 < into0;
  const float e = second ? error1 : error0;
  ways.next = fmaf(-e, v_next, second ? next1 : next0);
  ways.total = fminf(into0, into1);
  const int from = second ? me.mine_of[1] : me.mine_of[0];
  if (!kLast) ways.fed[0] = fmaf(-e, near.x, __shfl_sync(kAllLanes, ways.fed[0], from));
  ways.fed[1] = fmaf(-e, kLast ? near.x : near.y, __shfl_sync(kAllLanes, ways.fed[1], from));
  ways.trail = __shfl_sync(kAllLanes, ways.trail, from) << 3 | static_cast<uint32_t>(from / kLanes);
#pragma unroll
  for (int i = 0; i < kPlace; ++i) errors[i] = __shfl_sync(kAllLanes, errors[i], from);
  errors[kPlace] = e;
}

// A whole group is done: what its errors have made of all other rows, and on to the next.
__device__ __forceinline__ void EndGroup(const Group& group, unsigned lane, const float (&errors)[kLanes],
                                         Survivors& ways) {
  float v[kLanes][kNear];
#pragma unroll
  for (int r = 0; r < kLanes; ++r) {
#pragma unroll
    for (int part = 0; part < kNear / 4; ++part) {
      const float4 four = group.near[(r * kLanes * kNear) / 4 + part];
      v[r][4 * part] = four.x, v[r][4 * part + 1] = four.y, v[r][4 * part + 2] = four.z,
               v[r][4 * part + 3] = four.w;
    }
  }
  // Where the way was before the group.
  const auto from = static_cast<int>((ways.trail >> (3 * (kLanes - 1)) & 7) * kLanes + lane % kLanes);
  ways.fed[0] = ways.fed[1];
#pragma unroll
  for (int i = 1; i < kNear; ++i) {
    float fed = 0;
    if (i + 1 < kNear) {
      fed = __shfl_sync(kAllLanes, ways.fed[i + 1], from);
#pragma unroll
      for (int r = 0; r + 1 < kLanes; ++r) fed = fmaf(-errors[r], v[r][i + 1], fed);
    }
    ways.fed[i] = fmaf(-errors[kLanes - 1], v[kLanes - 1][i], fed);  // it counts from the next group on
  }
}

// Keeps which ways led through rows [base, now), kBegun of them or those that are left.
__device__ inline void KeepWays(const Role& me, unsigned base, unsigned now, unsigned lane,
                                ColumnMemory& memory, Survivors& ways) {
  const uint32_t before = ways.trail >> (3 * (now - base - 1)) & 7;
  ways.origins = __shfl_sync(kAllLanes, ways.origins, static_cast<int>(before * kLanes)) << 3 | before;
  if (lane % kLanes == 0) memory.trail[base / kBegun % (kRing / kBegun)][me.state] = ways.trail;
  __syncwarp();
}

// Rows before `upto` stay as they are on the cheapest way through the rows before `now`: ways that part from
// it there are no more. Returns its states before each kBegun rows, as Survivors::origins, and behind them
// the last.
__device__ inline uint32_t Decide(const Role& me, unsigned upto, unsigned now, Survivors& ways) {
  // Costs are not negative: their bits are in the same order.
  const uint32_t least = __reduce_min_sync(kAllLanes, __float_as_uint(ways.total));
  const uint32_t cheapest = __ballot_sync(kAllLanes, __float_as_uint(ways.total) == least);
  const uint32_t mine = ways.origins << 3 | static_cast<uint32_t>(me.state);
  const uint32_t states = __shfl_sync(kAllLanes, mine, __ffs(static_cast<int>(cheapest)) - 1);
  const unsigned place = 3 * ((now - 1) / kBegun - (upto - 1) / kBegun);
  const bool stays = ((mine ^ states) >> place & 7) == 0;
  ways.total = stays ? ways.total - __uint_as_float(least) : kNever;
  return states;
}

// What has been decided for a row.
struct Found {
  float value;  // when it was its turn
  int quantiser, parity;
};
// Of row `row`; states: by Decide.
__device__ inline Found FoundOf(const ColumnMemory& memory, unsigned row, unsigned now, uint32_t states) {
  const unsigned group = row / kBegun, behind = min((group + 1) * kBegun, now) - 1 - row;
  const uint32_t last = states >> (3 * ((now - 1) / kBegun - group)) & 7;
  // The state behind the row, and the one before it.
  const uint32_t way = memory.trail[group % (kRing / kBegun)][last] << 3 | last;
  const int after = static_cast<int>(way >> (3 * behind) & 7);
  const int before = static_cast<int>(way >> (3 * behind + 3) & 7);
  const bool second = static_cast<int>(kFirstBefore >> (4 * after) & 7) != before;
  const int parity = static_cast<int>(kFirstParity >> (4 * after) & 1) ^ (second ? 1 : 0);
  return {memory.value[row % kRing][before][parity], before & 1, parity};
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
