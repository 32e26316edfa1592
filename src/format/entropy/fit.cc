#include "format/entropy/fit.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace mica {
namespace {

constexpr double kEscapeBits = 16;

const std::array<double, kFrequencySum + 1>& BitsOfFrequency() {
  static const auto table = [] {
    std::array<double, kFrequencySum + 1> bits{};
    for (int f = 1; f <= kFrequencySum; ++f) bits[static_cast<size_t>(f)] = kFrequencyBits - std::log2(f);
    return bits;
  }();
  return table;
}

// Magnitudes up to the last that occurred.
size_t Used(const EntropyCounts::Row& counts) {
  size_t used = counts.size();
  while (used > 0 && counts[used - 1] == 0) --used;
  return used;
}

// TableBits of the same counts, for many knots of which some come again soon.
class CountedBits {
 public:
  CountedBits(int raw_bits, const EntropyCounts::Row& counts)
      : raw_bits_(raw_bits), counts_(&counts), any_(Used(counts) > 0) {}
  bool any() const { return any_; }  // else all are 0
  double operator()(const EntropyKnot& knot) {
    const uint32_t word = PackKnot(knot);
    Known& known = known_[word * 0x9E3779B1u >> (32 - kKnownBits)];
    if (known.word != word) known = {word, TableBits(knot, raw_bits_, *counts_)};
    return known.bits;
  }

 private:
  static constexpr int kKnownBits = 5;
  struct Known {
    uint32_t word = 0;  // of no knot
    double bits = 0;
  };
  int raw_bits_;
  const EntropyCounts::Row* counts_;
  bool any_;
  std::array<Known, size_t{1} << kKnownBits> known_;
};

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

}  // namespace

EntropyCounts& EntropyCounts::operator+=(const EntropyCounts& other) {
  for (size_t q = 0; q < 2; ++q) {
    for (size_t k = 0; k < rows[q].size(); ++k) {
      for (size_t m = 0; m < rows[q][k].size(); ++m) rows[q][k][m] += other.rows[q][k][m];
    }
  }
  return *this;
}

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

double TableBits(const EntropyKnot& knot, int raw_bits, const EntropyCounts::Row& counts) {
  const size_t used = Used(counts);
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
  CountedBits cost(raw_bits, counts);
  Descend(start, cost(start), 64, 1, cost);
  return start;
}

void FitKnots(std::vector<EntropyKnot>& knots, int first_knot,
              const std::vector<EntropyCounts::Row>& counts) {
  const int first_class = first_knot * kKnotSpacing;
  const int last_class = (first_knot + static_cast<int>(knots.size()) - 1) * kKnotSpacing;
  std::vector<CountedBits> bits_of;
  for (int k = first_class; k <= last_class; ++k)
    bits_of.emplace_back(RawBits(k), counts[static_cast<size_t>(k)]);
  struct Term {
    MovingKnot knot;
    CountedBits* bits;
  };
  std::vector<Term> terms;
  for (int pass = 0; pass < 2; ++pass) {
    for (size_t i = 0; i < knots.size(); ++i) {
      const int knot_class = (first_knot + static_cast<int>(i)) * kKnotSpacing;
      const int low = std::max(first_class, knot_class - 2 * kKnotSpacing + 1);
      // The tail of the classes with raw bits hangs on the knots of the last classes without.
      const int high = knot_class > kLastPlainClass - 3 * kKnotSpacing
                           ? last_class
                           : std::min(last_class, knot_class + 2 * kKnotSpacing - 1);
      terms.clear();
      for (int k = low; k <= high; ++k) {
        CountedBits& bits = bits_of[static_cast<size_t>(k - first_class)];
        if (bits.any()) terms.push_back({MovingKnot(knots, first_knot, k, i), &bits});
      }
      const auto cost = [&](const EntropyKnot& knot) {
        double bits = 0;
        for (const Term& term : terms) bits += (*term.bits)(term.knot(knot));
        return bits;
      };
      const double cost_now = cost(knots[i]);
      Descend(knots[i], cost_now, pass == 0 ? 16 : 4, pass == 0 ? 2 : 1, cost);
    }
  }
}

}  // namespace mica
