// The cheapest path of a column through one window of rows, by one warp: included by *_cuda.cu only.
//
// A lane is a row, where the values that survivors' errors have made of it are kept, and a pair (state,
// predecessor), where the choice is made.
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

// Of a warp. kParts: rows of a lane.
template <int kParts>
struct alignas(16) WindowMemory {
  float4 row[kWarp * kParts];            // step, 1 / step, 1 / V_rr, bytes from prices to the class
  float2 path[kWarp * kParts][kStates];  // by the state behind the row: its value and level on the way there
  float fed[2][kStates];                 // by state before a row: the value of the row behind it
  float error[2][kStates];               // by state behind a row: its error over V_rr
  float total[kStates];
  float u[kPanel];  // the part of U's column that is in the panel: not for the search
  // V right of the diagonal, zeros elsewhere; rows of part i have columns from that part on.
  float v[kWarp * kWarp * kParts * (kParts + 1) / 2 + 4];
};

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

struct Found {
  float value, level;  // of the row when it was its turn; |level| in steps
  int quantiser, after;
};

// The cheapest path from `start` through the first `rows` rows of the window. x: their values, row part kWarp
// + lane. All lanes call it, when memory.row and memory.v are there for all of them.
template <int kParts>
__device__ inline void Search(const Role& me, WindowMemory<kParts>& memory, int rows, int start,
                              const char* prices, const float (&x)[kParts], Found (&found)[kParts]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float a[kParts][kStates];  // by state before the row that is next
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
#pragma unroll
    for (int s = 0; s < kStates; ++s) a[part][s] = x[part];
  }
  uint32_t history[kParts] = {};  // of the lane's rows: LaneFrom(s) is set where s is reached by pick 1
  float value = __shfl_sync(kAllLanes, x[0], 0), total = me.from == start ? 0.0f : kNever;
  if (lane == 1) {
    for (int s = 0; s < kStates; ++s) memory.fed[0][s] = x[0];
  }
  __syncwarp();
  const float* v = memory.v;
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    const int count = min(rows - part * kWarp, kWarp);
    const int width = kWarp * (kParts - part);
#pragma unroll 4
    for (int r = 0; r < count; ++r) {
      const float4 row = memory.row[part * kWarp + r];
      const float v_next = v[r * width + r + 1];
      const float next[2] = {memory.fed[r & 1][me.before[0]], memory.fed[r & 1][me.before[1]]};
      // The nearest level of this quantiser and parity, and the one below it.
      const float step = copysignf(row.x, value);
      const float quarters = fminf(fmaf(fabsf(value), 0.25f * row.y, me.shift), kMostQuarters);
      const float magic = quarters + kMagic, k = magic - kMagic;
      const uint32_t index = min(__float_as_uint(magic), kMagicBits + kPriced - 1);
      const uint32_t offset =
          __float_as_uint(row.w) + me.table + index * static_cast<uint32_t>(sizeof(float2));
      const float2 price = __ldg(reinterpret_cast<const float2*>(prices + offset));
      const float size = fminf(fabsf(value) * row.y, 4.0f * kMostQuarters);
      const float near = fmaf(4.0f, k, me.lowest);
      const float level0 = fmaxf(near, 0.0f), level1 = fmaxf(near - 4.0f, 0.0f);
      const float rest0 = fmaf(-level0, step, value), rest1 = fmaf(-level1, step, value);
      const float d0 = size - level0, d1 = size - level1;
      const float cost0 = fmaf(d0, d0, price.x), cost1 = fmaf(d1, d1, price.y);
      const bool lower = cost1 < cost0;
      const float cost = total + fminf(cost0, cost1);
      const float error = (lower ? rest1 : rest0) * row.z;
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
        memory.path[part * kWarp + r][me.to] = make_float2(value, lower ? level1 : level0);
      if (lane == r) history[part] = picks;
      total = fminf(into0, into1);
      value = fmaf(-error_into, v_next, second ? next[1] : next[0]);
      __syncwarp();
      // Beside that, what the errors make of all rows to come.
      const float4 e0 = *reinterpret_cast<const float4*>(memory.error[r & 1]),
                   e1 = *reinterpret_cast<const float4*>(memory.error[r & 1] + 4);
      const float e[kStates] = {e0.x, e0.y, e0.z, e0.w, e1.x, e1.y, e1.z, e1.w};
#pragma unroll
      for (int later = part; later < kParts; ++later) {
        const float v_here = v[r * width + (later - part) * kWarp + lane];
        float b[kStates];
#pragma unroll
        for (int s = 0; s < kStates; ++s) {
          const bool from_second = (picks >> LaneFrom(s) & 1) != 0;
          b[s] = fmaf(-e[s], v_here, from_second ? a[later][Predecessor(s, 1)] : a[later][Predecessor(s, 0)]);
        }
#pragma unroll
        for (int s = 0; s < kStates; ++s) a[later][s] = b[s];
      }
      const auto hand_on = [&](const float(&from)[kStates]) {
        float* to = memory.fed[(r + 1) & 1];
        *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
        *reinterpret_cast<float4*>(to + 4) = make_float4(from[4], from[5], from[6], from[7]);
      };
      if (lane == r + 2) hand_on(a[part]);
      if constexpr (kParts > 1) {
        if (part + 1 < kParts && lane == r + 2 - kWarp) hand_on(a[part + 1 < kParts ? part + 1 : part]);
      }
      __syncwarp();
    }
    v += kWarp * width;
  }
  memory.total[me.from] = total;
  __syncwarp();
  int state = 0;
  float least = memory.total[0];
#pragma unroll
  for (int s = 1; s < kStates; ++s) {
    if (memory.total[s] < least) least = memory.total[s], state = s;
  }
  // The way back: a row maps the state behind it to the one before it. `map` leads from the last row of the
  // part to behind the lane's row.
  constexpr StateMap kIdentity = {0x03020100u, 0x07060504u};
#pragma unroll
  for (int part = kParts - 1; part >= 0; --part) {
    StateMap own = kIdentity;
    if (part * kWarp + lane < rows) {
      own = {};
#pragma unroll
      for (int s = 0; s < kStates; ++s) {
        const bool from_second = (history[part] >> LaneFrom(s) & 1) != 0;
        const auto before = static_cast<uint32_t>(from_second ? Predecessor(s, 1) : Predecessor(s, 0));
        (s < 4 ? own.low : own.high) |= before << (8 * (s % 4));
      }
    }
    StateMap map = {__shfl_down_sync(kAllLanes, own.low, 1), __shfl_down_sync(kAllLanes, own.high, 1)};
    if (lane == kWarp - 1) map = kIdentity;
#pragma unroll
    for (int reach = 1; reach < kWarp; reach *= 2) {
      const uint32_t below = __shfl_down_sync(kAllLanes, Packed(map), reach);
      if (lane + reach < kWarp)
        map = {__byte_perm(map.low, map.high, below & 0xFFFF), __byte_perm(map.low, map.high, below >> 16)};
    }
    const int after = map[state], before = own[after];
    const float2 way = memory.path[part * kWarp + lane][after];
    found[part] = {way.x, way.y, before & 1, after};
    state = __shfl_sync(kAllLanes, before, 0);
  }
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
