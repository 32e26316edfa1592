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

// Rows of which a warp keeps what it needs to decide them; row r of the tile stands at r % kRing.
inline constexpr unsigned kRing = 64;
static_assert(kMostOpen + kBegun <= kRing && kMostOpen % kBegun == 0);

// Of a warp.
struct alignas(16) ColumnMemory {
  float4 row[kWarp];  // at r % kWarp: step, 1 / step, value without errors of near rows, bytes from prices to
                      // the class
  float value[kRing][kStates][2];  // of the row when it was its turn, by the state before it and its parity
  float w[kRing];                  // the same without errors of this column's rows
  // Maps of states, four bits each: of the row, from behind it to before it; from behind the last row of its
  // kBegun to behind it; and from behind that one to before the first.
  uint32_t own[kRing], behind[kRing], all[kRing / kBegun];
  float u[kPanel];  // the part of U's column that is in the panel: not for the search
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
  role.levels = LevelsOf(role.state & 1, role.parity);
  return role;
}

// Eight numbers of three bits, a byte each.
struct StateMap {
  uint32_t low, high;
};
// The same, four bits each, and back.
__device__ inline uint32_t Packed(const StateMap& map) {
  return __byte_perm(map.low | map.low >> 4, map.high | map.high >> 4, 0x6420);
}
__device__ inline StateMap Unpacked(uint32_t map) {
  const uint32_t even = map & 0x07070707u, odd = map >> 4 & 0x07070707u;
  return {__byte_perm(even, odd, 0x5140), __byte_perm(even, odd, 0x7362)};
}
// First one, then the other.
__device__ inline StateMap Then(uint32_t first, const StateMap& second) {
  return {__byte_perm(second.low, second.high, first & 0xFFFF),
          __byte_perm(second.low, second.high, first >> 16)};
}
__device__ inline int Through(uint32_t map, int state) { return static_cast<int>(map >> (4 * state) & 7); }
inline constexpr uint32_t kStays = 0x76543210u;

// The ways through the rows so far, one to each state, of which a lane has its own.
struct Survivors {
  float fed[kNear];   // what errors on the way have made of the lane's rows to come
  float total, next;  // its cost, what its errors have made of the row that comes
  uint32_t
      history;  // at the row of this lane, r % kBegun: which lanes came by the second way into their state

  // Before the first row.
  __device__ void Begin(const Role& me) {
#pragma unroll
    for (float& value : fed) value = 0;
    total = me.state == 0 ? 0.0f : kNever;
    next = 0;
    history = 0;
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
  const unsigned here = r % kWarp;
  return {reinterpret_cast<const float4*>(v.near[r][lane % kLanes]), v.near[r][0], memory.row + here,
          memory.row + (here + kLanes) % kWarp, &memory.value[r % kRing][me.state][me.parity]};
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

// Row r of the tile, row kPlace of its group. row: its ColumnMemory::row and that of the row behind it, which
// go on by one; prices: as Choose takes them.
template <int kPlace>
__device__ __forceinline__ void Step(const Role& me, const Group& group, unsigned r, unsigned lane,
                                     const char* prices, float4 (&row)[2], Survivors& ways) {
  const float4* near = group.near + kPlace * (kLanes * kNear / 4);
  const float4 near0 = near[0], near1 = near[1], near2 = near[2];
  const float v[kNear] = {near0.x, near0.y, near0.z, near0.w, near1.x, near1.y,
                          near1.z, near1.w, near2.x, near2.y, near2.z, near2.w};
  constexpr int kNextLane = (kPlace + 1) % kLanes;
  const float v_next = group.next_near[(kPlace * kLanes + kNextLane) * kNear];
  const float4 here = row[0];
  row[0] = row[1];
  row[1] = kPlace + 2 < kLanes ? group.row[kPlace + 2] : group.next[(kPlace + 2) % kLanes];
  // The row behind it before this row's errors, on both ways into the state.
  constexpr int kNext = (kPlace + 1) / kLanes;
  const float next0 = __shfl_sync(kAllLanes, ways.fed[kNext], me.from[0] + kNextLane),
              next1 = __shfl_sync(kAllLanes, ways.fed[kNext], me.from[1] + kNextLane);
  const float value = ways.next + here.z;
  const Choice choice = Choose(me.levels, here, value, prices);
  const float cost = ways.total + choice.cost;
  // Which way into the state is cheaper.
  const float into0 = __shfl_sync(kAllLanes, cost, me.try_of[0]),
              into1 = __shfl_sync(kAllLanes, cost, me.try_of[1]);
  const float error0 = __shfl_sync(kAllLanes, choice.error, me.try_of[0]),
              error1 = __shfl_sync(kAllLanes, choice.error, me.try_of[1]);
  if (lane % kLanes < 2) group.value[kPlace * (kStates * 2)] = value;
  const bool second = into1 < into0;
  const float e = second ? error1 : error0;
  ways.next = fmaf(-e, v_next, second ? next1 : next0);
  ways.total = fminf(into0, into1);
  const int from = second ? me.mine_of[1] : me.mine_of[0];
  constexpr int kGoesOn = kPlace == kLanes - 1 ? 1 : 0;  // the group is done
#pragma unroll
  for (int i = 0; i < kNear; ++i) {
    const float before =
        i + kGoesOn < kNear ? __shfl_sync(kAllLanes, ways.fed[(i + kGoesOn) % kNear], from) : 0.0f;
    ways.fed[i] = fmaf(-e, v[i], before);
  }
  const uint32_t picks = __ballot_sync(kAllLanes, second);
  if (lane % kBegun == r % kBegun) ways.history = picks;
}

// Keeps which ways led through rows [base, now), kBegun of them or those that are left.
__device__ inline void KeepWays(const Survivors& ways, unsigned base, unsigned now, unsigned lane,
                                ColumnMemory& memory) {
  const unsigned place = lane % kBegun;
  uint32_t own = kStays;
  if (base + place < now) {
    own = kFirstBefore;
#pragma unroll
    for (int s = 0; s < kStates; ++s) {
      const auto other = static_cast<uint32_t>(Predecessor(s, 0) ^ Predecessor(s, 1)) << (4 * s);
      if ((ways.history >> (kLanes * s) & 1) != 0) own ^= other;
    }
  }
  uint32_t later = __shfl_down_sync(kAllLanes, own, 1, kBegun);
  StateMap behind = Unpacked(place + 1 == kBegun ? kStays : later);
#pragma unroll
  for (unsigned reach = 1; reach < kBegun; reach *= 2) {
    later = __shfl_down_sync(kAllLanes, Packed(behind), reach, kBegun);
    if (place + reach < kBegun) behind = Then(later, behind);
  }
  if (lane < kBegun) {
    memory.own[(base + place) % kRing] = own;
    memory.behind[(base + place) % kRing] = Packed(behind);
  }
  if (lane == 0) memory.all[base / kBegun % (kRing / kBegun)] = Packed(Then(Packed(behind), Unpacked(own)));
  __syncwarp();
}

// From `state` behind row `last` to that behind the last row of the kBegun that `row` is one of.
__device__ inline int Back(const ColumnMemory& memory, unsigned last, unsigned row, int state) {
  for (unsigned rows = last / kBegun; rows > row / kBegun; --rows)
    state = Through(memory.all[rows % (kRing / kBegun)], state);
  return state;
}

// Rows before `upto` stay as they are on the cheapest way through the rows before `now`: ways that part from
// it there are no more. Returns its state behind row upto - 1.
__device__ inline int Decide(const Role& me, const ColumnMemory& memory, unsigned upto, unsigned now,
                             Survivors& ways) {
  // Costs are not negative: their bits are in the same order.
  const uint32_t least = __reduce_min_sync(kAllLanes, __float_as_uint(ways.total));
  const uint32_t cheapest = __ballot_sync(kAllLanes, __float_as_uint(ways.total) == least);
  const int mine = Back(memory, now - 1, upto - 1, me.state);
  const int state = __shfl_sync(kAllLanes, mine, __ffs(static_cast<int>(cheapest)) - 1);
  ways.total = mine == state ? ways.total - __uint_as_float(least) : kNever;
  return state;
}

// What has been decided for a row.
struct Found {
  float value;  // when it was its turn
  int quantiser, parity;
};
// Of row `row` when `state` is behind row upto - 1.
__device__ inline Found FoundOf(const ColumnMemory& memory, unsigned row, unsigned upto, int state) {
  const unsigned place = row % kRing;
  const int after = Through(memory.behind[place], Back(memory, upto - 1, row, state));
  const int before = Through(memory.own[place], after);
  const bool second = Through(kFirstBefore, after) != before;
  const int parity = Through(kFirstParity, after) ^ (second ? 1 : 0);
  return {memory.value[place][before][parity], before & 1, parity};
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
