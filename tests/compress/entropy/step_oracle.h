// What StepChooser has to find, in FP64 and without its restrictions: every integer is a candidate, paths are
// kept whole. Written from docs/method.md (section 5), docs/format.md (levels) and
// ops/trellis/step_chooser.h.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <set>
#include <vector>

#include "base/matrix.h"
#include "format/entropy/tables.h"
#include "ops/trellis/step_chooser.h"

namespace mica {

// One column of one tile. All losses are in squared steps.
struct OracleColumn {
  std::vector<double> w, step;  // [rows]
  // [rows, rows] The error e of row r changes row k > r by -e v(r, k) / v(r, r); empty: it does not.
  Matrix<double> v;
  // What magnitude m of quantiser q costs in row r besides its distortion.
  std::function<double(int q, size_t r, int m)> price;
  int most = 24;  // largest magnitude considered where all are

  size_t rows() const { return w.size(); }
};

struct OraclePath {
  std::vector<int> n;
  double cost = 0;
  double margin = std::numeric_limits<double>::infinity();  // by which the closest decision was made
};

// The machine of eight states, as docs/format.md prints it.
inline constexpr std::array<std::array<int, 2>, 8> kOracleNext = {
    {{0, 2}, {5, 7}, {1, 3}, {6, 4}, {2, 0}, {4, 6}, {3, 1}, {7, 5}}};
inline int OracleQuantiser(int state) { return state % 2; }
inline int OracleLevel(int n, int q) { return n == 0 ? 0 : n > 0 ? 2 * n - q : 2 * n + q; }

// Squared steps that a bit is worth at lambda 1, of a scalar quantiser and of the trellis.
inline double OracleSlope(bool trellis) { return trellis ? 0.37 : 0.1155; }

// lambda bits + zero_price of non-zeros, the latter in squared steps of the scalar quantiser (those of the
// trellis are half as long). row_class: class of each row, that of the column added; rates: null for none.
inline std::function<double(int, size_t, int)> OraclePrice(const EntropyRates* rates,
                                                           std::vector<int> row_class,
                                                           const StepPrices& settings) {
  const double lambda = settings.lambda * OracleSlope(settings.trellis);
  const double zero_price = settings.zero_price * (settings.trellis ? 4 : 1);
  return [=](int q, size_t r, int m) {
    const double bits =
        rates == nullptr ? 0 : rates->Bits(q, row_class[r])[std::min(m, EntropyRates::kMagnitudes - 1)];
    return lambda * bits + (m == 0 ? 0 : zero_price);
  };
}

inline double OracleCost(const OracleColumn& column, double w, size_t r, int q, int n) {
  const double d = w / column.step[r] - OracleLevel(n, q);
  return d * d + column.price(q, r, std::abs(n));
}

// Cost of a path from state 0, with the feedback of its own errors.
inline double PathCost(const OracleColumn& column, const std::vector<int>& n) {
  std::vector<double> w = column.w;
  double cost = 0;
  int state = 0;
  for (size_t r = 0; r < column.rows(); ++r) {
    const int q = OracleQuantiser(state);
    cost += OracleCost(column, w[r], r, q, n[r]);
    const double e = w[r] - OracleLevel(n[r], q) * column.step[r];
    for (size_t k = r + 1; k < column.rows() && !column.v.empty(); ++k)
      w[k] -= e * column.v(r, k) / column.v(r, r);
    state = kOracleNext[static_cast<size_t>(state)][static_cast<size_t>(std::abs(n[r]) % 2)];
  }
  return cost;
}

// Every path without feedback, one after the other; `margin` is what the second cheapest costs more.
inline OraclePath CheapestOfAllPaths(const OracleColumn& column) {
  OraclePath best;
  best.cost = std::numeric_limits<double>::infinity();
  double second = best.cost;
  std::vector<int> n(column.rows());
  const std::function<void(size_t, int, double)> extend = [&](size_t r, int state, double cost) {
    if (cost >= second) return;  // no step costs less than nothing
    if (r == column.rows()) {
      second = std::min(second, std::max(cost, best.cost));
      if (cost < best.cost) best.cost = cost, best.n = n;
      return;
    }
    for (n[r] = -column.most; n[r] <= column.most; ++n[r]) {
      const double step = OracleCost(column, column.w[r], r, OracleQuantiser(state), n[r]);
      extend(r + 1, kOracleNext[static_cast<size_t>(state)][static_cast<size_t>(std::abs(n[r]) % 2)],
             cost + step);
    }
  };
  extend(0, 0, 0);
  best.margin = second - best.cost;
  return best;
}

// The least cost of all paths without feedback, by Bellman's recursion from the last row up.
inline double LeastCost(const OracleColumn& column) {
  std::array<double, 8> after{};
  for (size_t r = column.rows(); r-- > 0;) {
    std::array<double, 8> least;
    least.fill(std::numeric_limits<double>::infinity());
    for (size_t s = 0; s < 8; ++s) {
      for (int n = -column.most; n <= column.most; ++n) {
        const double cost = OracleCost(column, column.w[r], r, OracleQuantiser(static_cast<int>(s)), n);
        const int next = kOracleNext[s][static_cast<size_t>(std::abs(n) % 2)];
        least[s] = std::min(least[s], cost + after[static_cast<size_t>(next)]);
      }
    }
    after = least;
  }
  return after[0];
}

// The path that survives when each state keeps the cheapest path into it, and each path the feedback of its
// own errors; an integer has the sign of its weight. window: rows that are decided, each time `ahead` rows behind them
// are searched, as on the cheapest path; 0: none before the last.
inline OraclePath SurvivingPath(const OracleColumn& column, size_t window = 0, size_t ahead = 0) {
  struct Survivor {
    bool alive = false;
    double cost = 0;
    std::vector<int> n;
    std::vector<double> w;
  };
  const auto cheapest = [](const std::array<Survivor, 8>& survivors) {
    const Survivor* best = nullptr;
    for (const Survivor& survivor : survivors) {
      if (survivor.alive && (best == nullptr || survivor.cost < best->cost)) best = &survivor;
    }
    return best;
  };
  OraclePath result;
  const auto decide = [&](double by) { result.margin = std::min(result.margin, by); };
  std::array<Survivor, 8> now;
  now[0] = {true, 0, {}, column.w};
  for (size_t r = 0; r < column.rows(); ++r) {
    std::array<Survivor, 8> next;
    for (size_t s = 0; s < 8; ++s) {
      if (!now[s].alive) continue;
      const int q = OracleQuantiser(static_cast<int>(s));
      const double w = now[s].w[r];
      for (int parity = 0; parity < 2; ++parity) {
        double least = std::numeric_limits<double>::infinity(), second = least;
        int n = 0;
        for (int m = parity; m <= column.most; m += 2) {
          const int candidate = w < 0 ? -m : m;
          const double cost = OracleCost(column, w, r, q, candidate);
          second = std::min(second, std::max(cost, least));
          if (cost < least) least = cost, n = candidate;
        }
        decide(second - least);
        // The same magnitude with the other sign.
        if (n != 0) decide(OracleCost(column, w, r, q, -n) - least);
        Survivor& to = next[static_cast<size_t>(kOracleNext[s][static_cast<size_t>(parity)])];
        const double cost = now[s].cost + least;
        if (to.alive) decide(std::fabs(cost - to.cost));
        if (to.alive && cost >= to.cost) continue;
        to = {true, cost, now[s].n, now[s].w};
        to.n.push_back(n);
        const double e = w - OracleLevel(n, q) * column.step[r];
        for (size_t k = r + 1; k < column.rows() && !column.v.empty(); ++k)
          to.w[k] -= e * column.v(r, k) / column.v(r, r);
      }
    }
    now = std::move(next);
    const size_t searched = r + 1;
    if (window == 0 || searched < window + ahead || (searched - ahead) % window != 0 || searched == column.rows())
      continue;
    const auto decided = static_cast<std::ptrdiff_t>(searched - ahead);
    const Survivor* best = cheapest(now);
    const std::vector<int> kept(best->n.begin(), best->n.begin() + decided);
    const double least = best->cost;
    for (Survivor& survivor : now) {
      if (!survivor.alive || std::equal(kept.begin(), kept.end(), survivor.n.begin())) continue;
      decide(survivor.cost - least);
      survivor.alive = false;
    }
  }
  const Survivor* best = cheapest(now);
  for (const Survivor& survivor : now) {
    if (survivor.alive && &survivor != best) decide(survivor.cost - best->cost);
  }
  result.n = best->n;
  result.cost = best->cost;
  return result;
}

// Each weight on its own: the cheapest of all integers, or (only_near) of the nearest, the one before it and
// zero; the errors are fed to later rows.
inline OraclePath RoundedOneByOne(const OracleColumn& column, bool only_near) {
  OraclePath result;
  std::vector<double> w = column.w;
  for (size_t r = 0; r < column.rows(); ++r) {
    double least = std::numeric_limits<double>::infinity(), second = least;
    int n = 0;
    const auto consider = [&](int candidate) {
      const double d = w[r] / column.step[r] - candidate;
      const double cost = d * d + column.price(0, r, std::abs(candidate));
      second = std::min(second, std::max(cost, least));
      if (cost < least) least = cost, n = candidate;
    };
    const double x = w[r] / column.step[r];
    const int nearest = static_cast<int>(std::lround(x));
    if (only_near) {
      const int before = nearest - (nearest > 0 ? 1 : nearest < 0 ? -1 : 0);
      for (const int candidate : std::set<int>{0, before, nearest}) consider(candidate);
    } else {
      for (int candidate = -column.most; candidate <= column.most; ++candidate) consider(candidate);
    }
    // Which one the nearest is.
    if (only_near) result.margin = std::min(result.margin, 0.5 - std::fabs(x - nearest));
    result.margin = std::min(result.margin, second - least);
    result.n.push_back(n);
    result.cost += least;
    const double e = w[r] - n * column.step[r];
    for (size_t k = r + 1; k < column.rows() && !column.v.empty(); ++k)
      w[k] -= e * column.v(r, k) / column.v(r, r);
  }
  return result;
}

}  // namespace mica
