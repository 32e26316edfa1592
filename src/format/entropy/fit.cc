#include "format/entropy/fit.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"

namespace mica {
namespace {

constexpr double kEscapeBits = 16;
constexpr double kKnotBits = 32;

const std::array<double, kFrequencySum + 1>& BitsOfFrequency() {
  static const auto table = [] {
    std::array<double, kFrequencySum + 1> bits{};
    for (int f = 1; f <= kFrequencySum; ++f) bits[static_cast<size_t>(f)] = kFrequencyBits - std::log2(f);
    return bits;
  }();
  return table;
}

// One of the numbers of a knot moved by `by`; false when that leaves its range.
bool Move(EntropyKnot& knot, size_t field, int by) {
  const int value = by + (field == 0   ? knot.zero
                          : field == 1 ? knot.one
                          : field == 2 ? knot.ratio
                                       : knot.bend);
  const int largest = field == 0 ? kMaxZero : field == 1 ? kMaxOne : kMaxShape;
  if (value < (field == 0 ? 1 : 0) || value > largest) return false;
  if (field == 0) knot.zero = static_cast<uint16_t>(value);
  if (field == 1) knot.one = static_cast<uint8_t>(value);
  if (field == 2) knot.ratio = static_cast<uint8_t>(value);
  if (field == 3) knot.bend = static_cast<uint8_t>(value);
  return true;
}

// Descends from `knot` by single and joint moves of shrinking size; cost(knot) is what is made small.
template <typename Cost>
double Descend(EntropyKnot& knot, double cost_now, int largest, int smallest, Cost&& cost) {
  // Ratio and bend pull against each other, hence the joint moves.
  static constexpr int kMoves[][4] = {{1, 0, 0, 0},  {-1, 0, 0, 0}, {0, 1, 0, 0}, {0, -1, 0, 0},
                                      {0, 0, 1, 0},  {0, 0, -1, 0}, {0, 0, 0, 1}, {0, 0, 0, -1},
                                      {0, 0, 1, -1}, {0, 0, -1, 1}};
  for (int size = largest; size >= smallest; size /= 2) {
    bool better = true;
    for (int round = 0; better && round < 16; ++round) {
      better = false;
      for (const auto& move : kMoves) {
        EntropyKnot moved = knot;
        bool inside = true;
        for (size_t field = 0; field < 4; ++field) inside = inside && Move(moved, field, move[field] * size);
        if (!inside) continue;
        const double moved_cost = cost(moved);
        if (moved_cost >= cost_now - 1e-9) continue;
        cost_now = moved_cost;
        knot = moved;
        better = true;
      }
    }
  }
  return cost_now;
}

// Adds the counts of the classes below `first` to it, and of those above `last`. A symbol of a class with
// more raw bits stands for several magnitudes, which are taken as equally frequent.
EntropyCounts Limited(const EntropyCounts& counts, int first, int last) {
  EntropyCounts limited;
  for (size_t q = 0; q < 2; ++q) {
    for (int k = 0; k < kEntropyClasses; ++k) {
      const int to = std::clamp(k, first, last);
      const EntropyCounts::Row& row = counts.rows[q][static_cast<size_t>(k)];
      EntropyCounts::Row& sum = limited.rows[q][static_cast<size_t>(to)];
      const int finer = RawBits(k) - RawBits(to);
      sum[0] += row[0];
      for (size_t m = 1; m < row.size(); ++m) {
        if (row[m] == 0) continue;
        const size_t parts = size_t{1} << std::max(finer, 0);
        for (size_t i = 0; i < parts; ++i) {
          const size_t magnitude = finer >= 0 ? (m - 1) * parts + 1 + i : ((m - 1) >> -finer) + 1;
          sum[std::min<size_t>(magnitude, kMaxMagnitude + 1)] +=
              (row[m] * (i + 1)) / parts - (row[m] * i) / parts;
        }
      }
    }
  }
  return limited;
}

uint64_t Total(const EntropyCounts& counts, int entropy_class) {
  uint64_t total = 0;
  for (size_t q = 0; q < 2; ++q) {
    for (const uint64_t count : counts.rows[q][static_cast<size_t>(entropy_class)]) total += count;
  }
  return total;
}

// Makes the knots of one quantiser fit its counts, one knot after the other, twice.
void FitQuantiser(std::vector<EntropyKnot>& knots, int first_knot,
                  const std::vector<EntropyCounts::Row>& counts) {
  const int last_class = (first_knot + static_cast<int>(knots.size()) - 1) * kKnotSpacing;
  for (int pass = 0; pass < 2; ++pass) {
    for (size_t i = 0; i < knots.size(); ++i) {
      const int knot_class = (first_knot + static_cast<int>(i)) * kKnotSpacing;
      const int low = std::max(first_knot * kKnotSpacing, knot_class - 2 * kKnotSpacing + 1);
      // The tail of the classes with raw bits hangs on the knots of the last classes without.
      const int high = knot_class > kLastPlainClass - 3 * kKnotSpacing
                           ? last_class
                           : std::min(last_class, knot_class + 2 * kKnotSpacing - 1);
      const auto cost = [&](const EntropyKnot& knot) {
        knots[i] = knot;
        double bits = 0;
        for (int k = low; k <= high; ++k) {
          bits +=
              TableBits(InterpolateKnots(knots, first_knot, k), RawBits(k), counts[static_cast<size_t>(k)]);
        }
        return bits;
      };
      EntropyKnot best = knots[i];
      const double cost_now = cost(best);
      Descend(best, cost_now, pass == 0 ? 16 : 4, pass == 0 ? 2 : 1, cost);
      knots[i] = best;
    }
  }
}

}  // namespace

EntropyCounts& EntropyCounts::operator+=(const EntropyCounts& other) {
  for (size_t q = 0; q < 2; ++q) {
    for (size_t k = 0; k < rows[q].size(); ++k) {
      for (size_t m = 0; m < rows[q][k].size(); ++m) rows[q][k][m] += other.rows[q][k][m];
    }
  }
  return *this;
}

double TableBits(const EntropyKnot& knot, int raw_bits, const EntropyCounts::Row& counts) {
  size_t used = counts.size();
  while (used > 0 && counts[used - 1] == 0) --used;
  if (used == 0) return 0;
  const FrequencyTable table = MakeFrequencyTable(knot);
  const auto& bits_of = BitsOfFrequency();
  double bits = static_cast<double>(counts[0]) * bits_of[table.frequency[0]];
  for (size_t m = 1; m < used; ++m) {
    const bool escaped = m > static_cast<size_t>(table.magnitudes);
    bits += static_cast<double>(counts[m]) *
            (escaped ? bits_of[kEscapeFrequency] + kEscapeBits : bits_of[table.frequency[m]] + raw_bits);
  }
  return bits;
}

double TablesBits(const EntropyTables& tables, const EntropyCounts& all_counts) {
  const EntropyCounts counts = Limited(all_counts, tables.first_class(), tables.last_class());
  double bits = 0;
  for (int q = 0; q < tables.quantisers(); ++q) {
    for (int k = tables.first_class(); k <= tables.last_class(); ++k) {
      bits += TableBits(InterpolateKnots(tables.knots[static_cast<size_t>(q)], tables.first_knot, k),
                        RawBits(k), counts.rows[static_cast<size_t>(q)][static_cast<size_t>(k)]);
    }
  }
  return bits;
}

EntropyKnot FitKnot(EntropyKnot start, int raw_bits, const EntropyCounts::Row& counts) {
  const auto cost = [&](const EntropyKnot& knot) { return TableBits(knot, raw_bits, counts); };
  Descend(start, cost(start), 64, 1, cost);
  return start;
}

EntropyTables RefineTables(EntropyTables tables, const EntropyCounts& counts) {
  const EntropyCounts limited = Limited(counts, tables.first_class(), tables.last_class());
  ParallelFor(static_cast<size_t>(tables.quantisers()),
              [&](size_t q) { FitQuantiser(tables.knots[q], tables.first_knot, limited.rows[q]); });
  return tables;
}

EntropyTables FitTables(const EntropyTables& start, const EntropyCounts& counts) {
  MICA_CHECK(start.first_knot == 0 && start.knots[0].size() == static_cast<size_t>(kEntropyKnots));
  // Knots from `first` to `last` of tables that have them.
  const auto cut = [](const EntropyTables& tables, int first, int last) {
    EntropyTables part;
    part.first_knot = first;
    for (size_t q = 0; q < 2; ++q) {
      if (tables.knots[q].empty()) continue;
      const auto begin = tables.knots[q].begin() - tables.first_knot;
      part.knots[q].assign(begin + first, begin + last + 1);
    }
    return part;
  };
  const auto empty = [&](int from, int to) {
    for (int k = from; k <= to; ++k) {
      if (Total(counts, k) > 0) return false;
    }
    return true;
  };
  // Knots that no class needs go first. Tails of classes with raw bits come from the knots up to
  // kLastPlainClass.
  constexpr int kTailKnot = kLastFirstKnot - 1;
  int first = 0, last = kEntropyKnots - 1;
  while (first < last && empty(first * kKnotSpacing, (first + 1) * kKnotSpacing - 1)) ++first;
  while (first < last && empty((last - 1) * kKnotSpacing + 1, last * kKnotSpacing)) --last;
  if (last > kLastFirstKnot) first = std::min(first, kTailKnot);

  // Then rare classes at either end, where the bits of a knot exceed what it saves.
  EntropyTables best = RefineTables(cut(start, first, last), counts);
  double best_bits = TablesBits(best, counts);
  for (const bool at_end : {true, false}) {
    while (first < last) {
      const int from = at_end ? first : first + 1;
      const int to = at_end ? last - 1 : last;
      if (to > kLastFirstKnot && from > kTailKnot) break;
      EntropyTables fewer = cut(best, from, to);
      // Refining costs time: only where the knot does not pay by far.
      double bits = TablesBits(fewer, counts);
      if (bits < best_bits + 4 * kKnotBits * best.quantisers()) {
        fewer = RefineTables(std::move(fewer), counts);
        bits = TablesBits(fewer, counts);
      }
      if (bits > best_bits + kKnotBits * best.quantisers()) break;
      best = std::move(fewer);
      best_bits = bits;
      first = from;
      last = to;
    }
  }
  return best;
}

}  // namespace mica
