// The frequency tables of coding `entropy`: for each class of weights (and each quantiser of the trellis) how
// often each integer occurs, made from a few stored numbers in integer arithmetic only, so that every machine
// makes the same.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mica {

// A class says how large the integers are: class 24 has a standard deviation of about 1, one class more is a
// quarter of an octave more.
inline constexpr int kEntropyClasses = 65;
// Knots stand at classes 0, 4, ..., 64; tables of other classes are interpolated between them.
inline constexpr int kKnotSpacing = 4;
inline constexpr int kEntropyKnots = (kEntropyClasses - 1) / kKnotSpacing + 1;
// Frequencies of a table sum to 2^12.
inline constexpr int kFrequencyBits = 12;
inline constexpr int kFrequencySum = 1 << kFrequencyBits;
// Largest magnitude with a symbol of its own; larger integers are written out behind an escape.
inline constexpr int kMaxMagnitude = 63;
// Above this class only the upper bits of |n| - 1 are coded; the shape of the tail repeats every four
// classes.
inline constexpr int kLastPlainClass = 36;
// Tables must begin where there is still a tail to repeat.
inline constexpr int kLastFirstKnot = kLastPlainClass / kKnotSpacing;

// What is stored of the table at one knot. Frequencies of the magnitudes from 2 on fall by a ratio that
// itself changes steadily: a tail between that of a Gaussian and one heavier than a Laplacian's.
struct EntropyKnot {
  uint16_t zero = 1;  // 1 .. 1023: frequency of n = 0, in units of 4
  uint8_t one = 32;   // 0 .. 63: (32 + one) / 64 multiplies the frequency of magnitude 1
  uint8_t ratio = 0;  // 1 - (ratio / 256)^2: frequency of magnitude 2 over that of magnitude 1 without `one`
  uint8_t bend = 0;   // (67000 - 5/8 bend^2) / 65536 multiplies that ratio from each magnitude to the next
  bool operator==(const EntropyKnot&) const = default;
};
inline constexpr int kMaxZero = 1023, kMaxOne = 63, kMaxShape = 255;
// The word that is stored: zero in the lowest 10 bits, one in the next 6, then ratio, then bend.
constexpr uint32_t PackKnot(const EntropyKnot& knot) {
  return static_cast<uint32_t>(knot.zero) | static_cast<uint32_t>(knot.one) << 10 |
         static_cast<uint32_t>(knot.ratio) << 16 | static_cast<uint32_t>(knot.bend) << 24;
}
constexpr EntropyKnot UnpackKnot(uint32_t word) {
  return {static_cast<uint16_t>(word & 0x3FF), static_cast<uint8_t>(word >> 10 & 0x3F),
          static_cast<uint8_t>(word >> 16 & 0xFF), static_cast<uint8_t>(word >> 24)};
}
static_assert(UnpackKnot(PackKnot({1023, 63, 200, 5})) == EntropyKnot{1023, 63, 200, 5});
constexpr bool IsValid(const EntropyKnot& knot) {
  return knot.zero >= 1 && knot.zero <= kMaxZero && knot.one <= kMaxOne;
}

struct EntropyTables {
  int first_knot = 0;  // at most kLastFirstKnot
  std::array<std::vector<EntropyKnot>, 2>
      knots;  // of quantiser 0 and, with a trellis, of quantiser 1 (same size)

  int first_class() const { return first_knot * kKnotSpacing; }
  int last_class() const { return (first_knot + static_cast<int>(knots[0].size()) - 1) * kKnotSpacing; }
  int quantisers() const { return knots[1].empty() ? 1 : 2; }
};

// Low bits of |n| - 1 that are stored as they are in a class.
constexpr int RawBits(int entropy_class) {
  return entropy_class <= kLastPlainClass ? 0 : (entropy_class - kLastPlainClass + 3) / 4;
}
static_assert(RawBits(36) == 0 && RawBits(37) == 1 && RawBits(40) == 1 && RawBits(41) == 2 &&
              RawBits(64) == 7);
// Magnitude of the symbol that n has in a class with these raw bits: 0 for 0, else (|n| - 1) / 2^raw_bits
// + 1.
constexpr int SymbolMagnitude(int magnitude, int raw_bits) {
  return magnitude == 0 ? 0 : ((magnitude - 1) >> raw_bits) + 1;
}

// One table. Symbols in the order of their slots: 0, +1, -1, +2, -2, ..., +magnitudes, -magnitudes, escape.
// Frequency of the escape.
inline constexpr int kEscapeFrequency = 2;
struct FrequencyTable {
  int magnitudes = 0;                                   // at least 1
  std::array<uint16_t, kMaxMagnitude + 1> frequency{};  // [magnitude], of one sign
};
FrequencyTable MakeFrequencyTable(const EntropyKnot& knot);

// The numbers of the table at a class between first_class() and last_class() of one quantiser's knots.
EntropyKnot InterpolateKnots(const std::vector<EntropyKnot>& knots, int first_knot, int entropy_class);

// The same as one of the knots changes, that of index `moving`.
class MovingKnot {
 public:
  MovingKnot(const std::vector<EntropyKnot>& knots, int first_knot, int entropy_class, size_t moving);
  EntropyKnot operator()(const EntropyKnot& moving) const;

 private:
  int zero_weight_ = 0, tail_weight_ = 0;
  int zero_ = 64, one_ = 64, ratio_ = 64, bend_ = 64;  // the other knots' part, in 128ths
};

// All tables of a matrix in one row: class by class from the first to the last, those of both quantisers side
// by side.
class TableRange {
 public:
  TableRange() = default;
  explicit TableRange(const EntropyTables& tables)
      : first_(tables.first_class()), last_(tables.last_class()), quantisers_(tables.quantisers()) {}

  int first() const { return first_; }
  int last() const { return last_; }
  int quantisers() const { return quantisers_; }
  size_t size() const { return static_cast<size_t>((last_ - first_ + 1) * quantisers_); }
  // Where the table of a class stands, which is limited to the first and the last one.
  size_t Index(int quantiser, int entropy_class) const {
    const int k = entropy_class < first_ ? first_ : entropy_class > last_ ? last_ : entropy_class;
    return static_cast<size_t>((k - first_) * quantisers_ + quantiser);
  }
  // Makes the tables in their order: visit(FrequencyTable, class).
  template <typename Visit>
  void ForTables(const EntropyTables& tables, const Visit& visit) const {
    for (int k = first_; k <= last_; ++k) {
      for (int q = 0; q < quantisers_; ++q) {
        const std::vector<EntropyKnot>& knots = tables.knots[static_cast<size_t>(q)];
        visit(MakeFrequencyTable(InterpolateKnots(knots, tables.first_knot, k)), k);
      }
    }
  }

 private:
  int first_ = 0, last_ = 0, quantisers_ = 1;
};

// Bits that integers cost, sign and escape included: bits(quantiser, class, |n|).
class EntropyRates {
 public:
  static constexpr int kMagnitudes = 1024;  // |n| of this and above cost as much as this less 1
  explicit EntropyRates(const EntropyTables& tables);
  // [kMagnitudes] of the class, limited to those of the tables.
  const float* Bits(int quantiser, int entropy_class) const {
    const int k = entropy_class < first_ ? first_ : entropy_class > last_ ? last_ : entropy_class;
    return bits_.data() + (static_cast<size_t>(quantiser * kEntropyClasses + k)) * kMagnitudes;
  }
  int first_class() const { return first_; }
  int last_class() const { return last_; }

 private:
  int first_, last_;
  std::vector<float> bits_;  // [2, kEntropyClasses, kMagnitudes]
};

// Tables for all classes of a generalised Gaussian (exponent 1.4), rounded with a small dead zone: what a
// rate-distortion search starts from.
EntropyTables DefaultEntropyTables(int states);

}  // namespace mica
