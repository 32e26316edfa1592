#include "format/entropy/tables.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace mica {

FrequencyTable MakeFrequencyTable(const EntropyKnot& knot) {
  MICA_CHECK(IsValid(knot));
  FrequencyTable table;
  table.frequency[0] = static_cast<uint16_t>(4 * knot.zero);
  const int64_t half =
      (kFrequencySum - 4 * knot.zero - kEscapeFrequency) / 2;  // for the magnitudes of one sign

  std::array<int64_t, kMaxMagnitude + 1> weight{};
  constexpr int64_t kUnit = int64_t{1} << 24;
  int64_t ratio = 65535 - int64_t{knot.ratio} * knot.ratio;
  const int64_t bend = 67000 - (int64_t{knot.bend} * knot.bend * 5 >> 3);
  weight[1] = kUnit * (32 + knot.one) >> 6;
  int64_t sum = weight[1];
  int64_t previous = kUnit;
  for (size_t m = 2; m <= kMaxMagnitude && previous > 0; ++m) {
    previous = weight[m] = previous * ratio >> 16;
    sum += previous;
    ratio = std::min<int64_t>(65535, ratio * bend >> 16);
  }
  // Magnitudes that would have half a slot or more keep a symbol, and each such at least one slot.
  size_t count = 1;
  int64_t kept = weight[1];
  while (count < static_cast<size_t>(std::min<int64_t>(half, kMaxMagnitude)) &&
         2 * weight[count + 1] * half >= sum) {
    kept += weight[++count];
  }
  const int64_t shared = half - static_cast<int64_t>(count);
  int64_t left = half;
  // What weight * shared / kept rounds down to, without a division: half a unit more is far from any multiple
  // of kept, below 2^30, and two roundings of a quotient below 2^12 are far smaller.
  const double inverse = 1.0 / static_cast<double>(kept);
  for (size_t m = 1; m <= count; ++m) {
    const double share = (static_cast<double>(weight[m] * shared) + 0.5) * inverse;
    table.frequency[m] = static_cast<uint16_t>(1 + static_cast<int>(share));
    left -= table.frequency[m];
  }
  table.frequency[1] = static_cast<uint16_t>(table.frequency[1] + left);
  table.magnitudes = static_cast<int>(count);
  return table;
}

MovingKnot::MovingKnot(const std::vector<EntropyKnot>& knots, int first_knot, int entropy_class,
                       size_t moving) {
  // Catmull-Rom weights of the four knots around a class, in 128ths.
  static constexpr int kWeights[kKnotSpacing][4] = {
      {0, 128, 0, 0}, {-9, 111, 29, -3}, {-8, 72, 72, -8}, {-3, 29, 111, -9}};
  MICA_CHECK(first_knot >= 0);
  MICA_CHECK(first_knot <= kLastFirstKnot);
  const int last_knot = first_knot + static_cast<int>(knots.size()) - 1;
  // Calls rest(knot, weight) for those that do not move; the weight of the one that does.
  const auto interpolate = [&](int at, int end_knot, auto rest) {
    const int* weights = kWeights[at % kKnotSpacing];
    int of_moving = 0;
    for (int i = 0; i < 4; ++i) {
      const int knot = std::clamp(at / kKnotSpacing - 1 + i, first_knot, end_knot);
      const size_t index = static_cast<size_t>(knot - first_knot);
      if (index == moving) {
        of_moving += weights[i];
      } else {
        rest(knots[index], weights[i]);
      }
    }
    return of_moving;
  };
  zero_weight_ = interpolate(entropy_class, last_knot,
                             [&](const EntropyKnot& knot, int weight) { zero_ += weight * knot.zero; });
  // Tails of classes with raw bits are those of the last four classes without.
  const int tail_class = entropy_class - 4 * RawBits(entropy_class);
  const int last_tail_knot = std::max(first_knot, std::min(last_knot, kLastFirstKnot));
  tail_weight_ = interpolate(tail_class, last_tail_knot, [&](const EntropyKnot& knot, int weight) {
    one_ += weight * knot.one;
    ratio_ += weight * knot.ratio;
    bend_ += weight * knot.bend;
  });
}

EntropyKnot MovingKnot::operator()(const EntropyKnot& moving) const {
  const auto at = [](int rest, int weight, int of_moving, int low, int high) {
    return std::clamp((rest + weight * of_moving) >> 7, low, high);
  };
  return {static_cast<uint16_t>(at(zero_, zero_weight_, moving.zero, 1, kMaxZero)),
          static_cast<uint8_t>(at(one_, tail_weight_, moving.one, 0, kMaxOne)),
          static_cast<uint8_t>(at(ratio_, tail_weight_, moving.ratio, 0, kMaxShape)),
          static_cast<uint8_t>(at(bend_, tail_weight_, moving.bend, 0, kMaxShape))};
}

EntropyKnot InterpolateKnots(const std::vector<EntropyKnot>& knots, int first_knot, int entropy_class) {
  return MovingKnot(knots, first_knot, entropy_class, 0)(knots[0]);
}

EntropyRates::EntropyRates(const EntropyTables& tables)
    : first_(tables.first_class()),
      last_(tables.last_class()),
      bits_(static_cast<size_t>(2 * kEntropyClasses * kMagnitudes), 0.0f) {
  for (int q = 0; q < tables.quantisers(); ++q) {
    for (int k = first_; k <= last_; ++k) {
      const FrequencyTable table =
          MakeFrequencyTable(InterpolateKnots(tables.knots[static_cast<size_t>(q)], tables.first_knot, k));
      const int raw_bits = RawBits(k);
      float* bits = bits_.data() + static_cast<size_t>(q * kEntropyClasses + k) * kMagnitudes;
      for (int n = 0; n < kMagnitudes; ++n) {
        const int m = SymbolMagnitude(n, raw_bits);
        const bool escaped = m > table.magnitudes;
        const int frequency = escaped ? kEscapeFrequency : table.frequency[static_cast<size_t>(m)];
        bits[n] = static_cast<float>(kFrequencyBits - std::log2(frequency) +
                                     (escaped ? 16
                                      : m > 0 ? raw_bits
                                              : 0));
      }
    }
  }
}

EntropyTables DefaultEntropyTables(int states) {
  // FitKnot and RefineTables on the exact frequencies of a generalised Gaussian of exponent 1.5: quantiser 0
  // (and the scalar one) rounds to the nearest integer less 0.05; quantiser 1 has |n| = 1 from 0.25 to 1, 2
  // from 1 to 2, and so on.
  static const std::vector<EntropyKnot> kFirst = {
      {1023, 32, 255, 100}, {1023, 32, 255, 100}, {1023, 32, 255, 100}, {1020, 32, 255, 60},
      {989, 32, 255, 60},   {771, 39, 253, 18},   {472, 23, 228, 149},  {255, 26, 172, 105},
      {133, 23, 121, 69},   {65, 20, 86, 54},     {32, 20, 86, 54},     {17, 20, 86, 54},
      {8, 20, 86, 54},      {4, 20, 86, 54},      {2, 20, 86, 54},      {1, 20, 86, 54},
      {1, 20, 86, 54}};
  static const std::vector<EntropyKnot> kSecond = {
      {1023, 32, 255, 100}, {1023, 32, 255, 100}, {1022, 32, 255, 100}, {997, 48, 255, 100},
      {814, 42, 255, 100},  {503, 20, 246, 250},  {277, 17, 204, 203},  {142, 3, 169, 100},
      {71, 19, 113, 71},    {37, 18, 83, 54},     {18, 18, 83, 54},     {9, 18, 83, 54},
      {5, 18, 83, 54},      {2, 18, 83, 54},      {1, 18, 83, 54},      {1, 18, 83, 54},
      {1, 18, 83, 54}};
  EntropyTables tables;
  tables.knots[0] = kFirst;
  if (states > 1) tables.knots[1] = kSecond;
  return tables;
}

}  // namespace mica
