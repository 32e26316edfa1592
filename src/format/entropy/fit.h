// Fits the knots of entropy tables to counted symbols, one quantiser at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "format/entropy/tables.h"

namespace mica {

// How often each symbol magnitude occurred: [quantiser][class][magnitude], the last entry for everything
// beyond kMaxMagnitude.
struct EntropyCounts {
  using Row = std::array<uint64_t, kMaxMagnitude + 2>;
  std::array<std::vector<Row>, 2> rows = {std::vector<Row>(kEntropyClasses),
                                          std::vector<Row>(kEntropyClasses)};
  void Add(int quantiser, int entropy_class, int magnitude) {
    const int m = SymbolMagnitude(magnitude, RawBits(entropy_class));
    ++rows[static_cast<size_t>(quantiser)][static_cast<size_t>(entropy_class)]
          [static_cast<size_t>(std::min(m, kMaxMagnitude + 1))];
  }
  EntropyCounts& operator+=(const EntropyCounts& other);
};

// Adds the counts of the classes below `first` to it, and of those above `last`. A symbol of a class with
// more raw bits stands for several magnitudes, which are taken as equally frequent.
EntropyCounts Limited(const EntropyCounts& counts, int first, int last);

// Bits of the counted symbols with one table, signs, raw bits and escapes included.
double TableBits(const EntropyKnot& knot, int raw_bits, const EntropyCounts::Row& counts);
// The same with a set of tables; counts of classes outside the tables belong to their first and last class.
double TablesBits(const EntropyTables& tables, const EntropyCounts& counts);

// The numbers that make one table shortest for these counts, from `start`.
EntropyKnot FitKnot(EntropyKnot start, int raw_bits, const EntropyCounts::Row& counts);

// The same for the knots of one quantiser, one after the other, twice; counts: [class].
void FitKnots(std::vector<EntropyKnot>& knots, int first_knot, const std::vector<EntropyCounts::Row>& counts);

}  // namespace mica
