#include "ops/codes/fit_tables.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/threads.h"

namespace mica {
namespace {

constexpr double kKnotBits = 32;

uint64_t Total(const EntropyCounts& counts, int entropy_class) {
  uint64_t total = 0;
  for (size_t q = 0; q < 2; ++q) {
    for (const uint64_t count : counts.rows[q][static_cast<size_t>(entropy_class)]) total += count;
  }
  return total;
}

}  // namespace

EntropyTables RefineTables(EntropyTables tables, const EntropyCounts& counts) {
  const EntropyCounts limited = Limited(counts, tables.first_class(), tables.last_class());
  ParallelFor(static_cast<size_t>(tables.quantisers()),
              [&](size_t q) { FitKnots(tables.knots[q], tables.first_knot, limited.rows[q]); });
  return tables;
}

EntropyTables FitTables(const EntropyTables& start, const EntropyCounts& counts) {
  MICA_CHECK(start.first_knot == 0);
  MICA_CHECK(start.knots[0].size() == static_cast<size_t>(kEntropyKnots));
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
