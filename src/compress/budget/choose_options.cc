#include "compress/budget/choose_options.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "base/error.h"

namespace mica {
namespace {

using Options = std::vector<UnitOption>;

// The first of fewest bits, of those the one with the least loss.
size_t Cheapest(const Options& options) {
  size_t best = 0;
  for (size_t i = 1; i < options.size(); ++i) {
    const UnitOption &a = options[i], &b = options[best];
    if (a.bits < b.bits || (a.bits == b.bits && a.loss < b.loss)) best = i;
  }
  return best;
}

// What a unit gains by going from one corner of its hull to the next.
struct Edge {
  size_t unit, to;
  double bits, gain;
};

// The lower hull of a unit's options from its cheapest on: edges of falling gain per bit.
void AppendHull(const Options& options, size_t unit, std::vector<Edge>& edges) {
  size_t at = Cheapest(options);
  for (;;) {
    size_t next = at;
    double best = 0;
    for (size_t i = 0; i < options.size(); ++i) {
      const double bits = options[i].bits - options[at].bits, gain = options[at].loss - options[i].loss;
      if (!(bits > 0) || !(gain > 0)) continue;
      // Of equal slopes the longer edge.
      if (gain / bits > best || (gain / bits == best && options[i].bits > options[next].bits)) {
        best = gain / bits;
        next = i;
      }
    }
    if (next == at) return;
    edges.push_back(
        {unit, next, options[next].bits - options[at].bits, options[at].loss - options[next].loss});
    at = next;
  }
}

// Options of a unit that lose less than the one it has, or take less.
struct Move {
  size_t unit, to;
  double bits, gain;  // bits more, loss less; of a step down both are negative
};

// From the hulls of all units under one price.
std::vector<size_t> ByPrice(const std::vector<Options>& units, double most_bits) {
  std::vector<size_t> choice(units.size());
  std::vector<Edge> edges;
  for (size_t u = 0; u < units.size(); ++u) {
    choice[u] = Cheapest(units[u]);
    AppendHull(units[u], u, edges);
  }
  std::stable_sort(edges.begin(), edges.end(),
                   [](const Edge& a, const Edge& b) { return a.gain * b.bits > b.gain * a.bits; });
  double left = most_bits - BitsOfChoice(units, choice);
  std::vector<bool> stopped(units.size(), false);  // an edge did not fit, so those behind it cannot be taken
  for (const Edge& edge : edges) {
    if (stopped[edge.unit]) continue;
    if (edge.bits > left) {
      stopped[edge.unit] = true;
      continue;
    }
    choice[edge.unit] = edge.to;
    left -= edge.bits;
  }
  return choice;
}

// The best of all choices whose bits fit when each unit's are rounded up to a share of what is left beyond
// the cheapest: next to exact for few units, for which prices are coarse.
std::vector<size_t> ByTable(const std::vector<Options>& units, double most_bits) {
  constexpr size_t kShares = 4096;
  std::vector<size_t> choice(units.size());
  for (size_t u = 0; u < units.size(); ++u) choice[u] = Cheapest(units[u]);
  const double left = most_bits - BitsOfChoice(units, choice);
  if (!(left > 0)) return choice;
  const double share = left / kShares;
  // loss[k]: least loss of the units so far with at most k shares.
  std::vector<double> loss(kShares + 1, 0.0), next(kShares + 1);
  std::vector<std::vector<uint16_t>> taken(units.size(), std::vector<uint16_t>(kShares + 1));
  for (size_t u = 0; u < units.size(); ++u) {
    const double least = units[u][choice[u]].bits;
    std::fill(next.begin(), next.end(), std::numeric_limits<double>::infinity());
    for (size_t i = 0; i < units[u].size(); ++i) {
      const double shares = std::ceil((units[u][i].bits - least) / share - 1e-9);
      if (shares > kShares) continue;
      const auto need = static_cast<size_t>(std::max(shares, 0.0));
      for (size_t k = need; k <= kShares; ++k) {
        const double sum = loss[k - need] + units[u][i].loss;
        if (sum >= next[k]) continue;
        next[k] = sum;
        taken[u][k] = static_cast<uint16_t>(i);
      }
    }
    std::swap(loss, next);
  }
  size_t k = kShares;
  for (size_t u = units.size(); u-- > 0;) {
    const size_t cheapest = choice[u];
    choice[u] = taken[u][k];
    const double more = units[u][choice[u]].bits - units[u][cheapest].bits;
    k -= static_cast<size_t>(std::max(std::ceil(more / share - 1e-9), 0.0));
  }
  return choice;
}

// Steps up that fit, and steps up of one unit that a step down of another pays for, as long as there are.
void Improve(const std::vector<Options>& units, double most_bits, std::vector<size_t>& choice) {
  double left = most_bits - BitsOfChoice(units, choice);
  const auto moves = [&](bool up) {
    std::vector<Move> found;
    for (size_t u = 0; u < units.size(); ++u) {
      const UnitOption& now = units[u][choice[u]];
      for (size_t i = 0; i < units[u].size(); ++i) {
        const double bits = units[u][i].bits - now.bits, gain = now.loss - units[u][i].loss;
        if (up ? gain > 0 : bits < 0 && gain <= 0) found.push_back({u, i, bits, gain});
      }
    }
    return found;
  };
  for (size_t round = 0; round < 4 * units.size() + 16; ++round) {
    const std::vector<Move> ups = moves(true), downs = moves(false);
    const Move* best_up = nullptr;
    const Move* best_down = nullptr;
    double best = 0;
    for (const Move& up : ups) {
      if (up.gain <= best) continue;
      if (up.bits <= left) {
        best = up.gain;
        best_up = &up;
        best_down = nullptr;
        continue;
      }
      for (const Move& down : downs) {
        if (down.unit == up.unit || up.bits + down.bits > left || !(up.gain + down.gain > best)) continue;
        best = up.gain + down.gain;
        best_up = &up;
        best_down = &down;
      }
    }
    if (best_up == nullptr) return;
    for (const Move* move : {best_up, best_down}) {
      if (move == nullptr) continue;
      choice[move->unit] = move->to;
      left -= move->bits;
    }
  }
}

double LossOfChoice(const std::vector<Options>& units, const std::vector<size_t>& choice) {
  double loss = 0;
  for (size_t u = 0; u < units.size(); ++u) loss += units[u][choice[u]].loss;
  return loss;
}

}  // namespace

double BitsOfChoice(const std::vector<Options>& units, const std::vector<size_t>& choice) {
  double bits = 0;
  for (size_t u = 0; u < units.size(); ++u) bits += units[u][choice[u]].bits;
  return bits;
}

std::vector<size_t> ChooseOptions(const std::vector<Options>& units, double most_bits) {
  for (const Options& options : units) MICA_CHECK(!options.empty());
  std::vector<size_t> by_price = ByPrice(units, most_bits), by_table = ByTable(units, most_bits);
  Improve(units, most_bits, by_price);
  Improve(units, most_bits, by_table);
  return LossOfChoice(units, by_table) < LossOfChoice(units, by_price) ? by_table : by_price;
}

}  // namespace mica
