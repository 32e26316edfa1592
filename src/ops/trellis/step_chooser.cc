#include "ops/trellis/step_chooser.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace mica {
namespace {

// Squared steps that a bit is worth at high rate: dD/dR = 2 ln 2 D with D = 1/12; the trellis halves the step
// at equal rate.
constexpr float kScalarSlope = 0.1155f;
constexpr float kTrellisSlope = 0.37f;
constexpr float kNever = 1e30f;

// |w| in steps; NaN counts as the largest.
float SizeInSteps(float w, float inverse) {
  const float x = std::fabs(w) * inverse;
  return x < kBeyondAll ? x : kBeyondAll;
}

}  // namespace

float PriceOfBit(const StepPrices& prices) {
  return static_cast<float>(prices.lambda) * (prices.trellis ? kTrellisSlope : kScalarSlope);
}
float PriceOfNonzero(const StepPrices& prices) {
  return static_cast<float>(prices.zero_price) * (prices.trellis ? 4.0f : 1.0f);
}

StepChooser::StepChooser(const EntropyRates* rates, const StepPrices& prices)
    : trellis_(TrellisOf(kTrellisStates)),
      rates_(rates),
      window_(prices.window > 0 ? prices.window : kCodedTileRows),
      ahead_(prices.ahead),
      lambda_(PriceOfBit(prices)),
      zero_price_(PriceOfNonzero(prices)) {}

int StepChooser::Round(float w, const TileColumn& column, size_t r) const {
  const float x = SizeInSteps(w, column.inverse[r]);
  const int nearest = static_cast<int>(std::min(x + 0.5f, static_cast<float>(kMaxInteger)));
  int best = nearest;
  if (rates_ != nullptr || zero_price_ > 0) {
    const float* bits = RatesOf(0, column, r);
    best = 0;
    float least = x * x + Price(bits, 0);
    for (int m = std::max(1, nearest - 1); m <= nearest; ++m) {
      const float d = x - static_cast<float>(m);
      const float cost = d * d + Price(bits, m) + zero_price_;
      if (cost < least) least = cost, best = m;
    }
  }
  return w < 0 ? -best : best;
}

void StepChooser::Candidate(float x, int q, int parity, const float* bits, float* cost,
                            int16_t* magnitude) const {
  const float position = 0.5f * (x + static_cast<float>(q));  // in m
  const float capped = std::min(0.5f * (position - static_cast<float>(parity)), 16000.0f);
  const int nearest = parity + 2 * std::max(0, static_cast<int>(capped + 0.5f));
  *cost = kNever;
  for (int m = nearest; m >= std::max(parity, nearest - 2); m -= 2) {
    const float d = x - static_cast<float>(trellis_.Level(m, q));
    const float c = d * d + Price(bits, m) + (m == 0 ? 0.0f : zero_price_);
    if (c < *cost) *cost = c, *magnitude = static_cast<int16_t>(m);
  }
}

void StepChooser::FollowTrellis(const TileColumn& column, int16_t* n) const {
  struct Survivor {
    float total = kNever;
    alignas(64) float w[kCodedTileRows];  // what its errors have made of the rows to come
  };
  struct Arrival {
    int16_t n = 0;
    uint8_t from = 0;
  };
  Survivor survivors[2][kTrellisStates] = {};
  Arrival arrivals[kCodedTileRows][kTrellisStates];
  Survivor *now = survivors[0], *next = survivors[1];
  now[0].total = 0;
  std::copy_n(column.w, column.rows, now[0].w);
  const auto cheapest = [&] {
    int state = 0;
    for (int s = 1; s < kTrellisStates; ++s) {
      if (now[s].total < now[state].total) state = s;
    }
    return state;
  };
  size_t decided = 0;
  for (size_t r = 0; r < column.rows; ++r) {
    for (int s = 0; s < kTrellisStates; ++s) next[s].total = kNever;
    for (int s = 0; s < kTrellisStates; ++s) {
      if (now[s].total >= kNever) continue;
      // Without feedback all survivors see the same weight.
      const float w = column.v != nullptr ? now[s].w[r] : column.w[r];
      const int q = trellis_.quantiser[static_cast<size_t>(s)];
      const float* bits = RatesOf(q, column, r);
      for (int parity = 0; parity < 2; ++parity) {
        float cost;
        int16_t magnitude;
        Candidate(SizeInSteps(w, column.inverse[r]), q, parity, bits, &cost, &magnitude);
        const int to = trellis_.next[static_cast<size_t>(s)][static_cast<size_t>(parity)];
        if (now[s].total + cost >= next[to].total) continue;
        next[to].total = now[s].total + cost;
        arrivals[r][to] = {static_cast<int16_t>(w < 0 ? -magnitude : magnitude), static_cast<uint8_t>(s)};
      }
    }
    float floor = kNever;
    for (int s = 0; s < kTrellisStates; ++s) floor = std::min(floor, next[s].total);
    for (int to = 0; to < kTrellisStates; ++to) {
      if (next[to].total >= kNever) continue;
      next[to].total -= floor;
      if (column.v == nullptr) continue;
      const Arrival& arrival = arrivals[r][to];
      const float* before = now[arrival.from].w;
      float* after = next[to].w;
      const int level = trellis_.Level(arrival.n, trellis_.quantiser[arrival.from]);
      const float* v = column.v + r * column.v_stride;
      const float e = (before[r] - static_cast<float>(level) * column.step[r]) / v[r];
      for (size_t k = r + 1; k < column.rows; ++k) after[k] = before[k] - e * v[k];
    }
    std::swap(now, next);
    if (r + 1 < decided + window_ + ahead_ || r + 1 == column.rows) continue;
    decided += window_;
    // Where the way to a state was behind the rows that are decided.
    const auto was = [&](int state) {
      for (size_t row = r; row >= decided; --row) state = arrivals[row][state].from;
      return state;
    };
    const int kept = was(cheapest());
    for (int s = 0; s < kTrellisStates; ++s) {
      if (now[s].total < kNever && was(s) != kept) now[s].total = kNever;
    }
  }
  int state = cheapest();
  for (size_t r = column.rows; r-- > 0;) {
    n[r] = arrivals[r][state].n;
    state = arrivals[r][state].from;
  }
}

}  // namespace mica
