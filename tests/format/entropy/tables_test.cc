#include "format/entropy/tables.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

namespace mica {
namespace {

int Sum(const FrequencyTable& table) {
  int sum = table.frequency[0] + kEscapeFrequency;
  for (int m = 1; m <= table.magnitudes; ++m) sum += 2 * table.frequency[static_cast<size_t>(m)];
  return sum;
}

TEST(FrequencyTable, AlwaysSumsAndLeavesNoGap) {
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    EntropyKnot knot;
    knot.zero = static_cast<uint16_t>(1 + random() % kMaxZero);
    knot.one = static_cast<uint8_t>(random() % 64);
    knot.ratio = static_cast<uint8_t>(random() % 256);
    knot.bend = static_cast<uint8_t>(random() % 256);
    const FrequencyTable table = MakeFrequencyTable(knot);
    ASSERT_EQ(Sum(table), kFrequencySum) << PackKnot(knot);
    ASSERT_GE(table.magnitudes, 1);
    ASSERT_LE(table.magnitudes, kMaxMagnitude);
    for (int m = 0; m <= table.magnitudes; ++m)
      ASSERT_GE(table.frequency[static_cast<size_t>(m)], 1) << PackKnot(knot) << " " << m;
  }
}

// zero 1020: 16 slots are left, 14 for integers, 7 a sign. ratio 255 makes magnitude 2 about 1/128 of
// magnitude 1: less than half a slot. ratio 181 gives (65535 - 32761) / 65536 = 0.50009: weights 1, .5, .25,
// ... times (67000 / 65536)^0, ...^1, ...
TEST(FrequencyTable, ByHand) {
  FrequencyTable table = MakeFrequencyTable({1020, 32, 255, 0});
  EXPECT_EQ(table.frequency[0], 4080);
  EXPECT_EQ(table.magnitudes, 1);
  EXPECT_EQ(table.frequency[1], 7);
  // Weights 1, .50009, .25567, .13363, .0714, ...; sum about 2.08; half a slot is .149 of it: magnitudes 1, 2
  // and 3 stay. Each has one slot, the other four are shared 1 : .50009 : .25567, that is 2.28, 1.14, .58
  // rounded down; what is left goes to magnitude 1.
  table = MakeFrequencyTable({1020, 32, 181, 0});
  EXPECT_EQ(table.magnitudes, 3);
  EXPECT_EQ(table.frequency[1], 4);
  EXPECT_EQ(table.frequency[2], 2);
  EXPECT_EQ(table.frequency[3], 1);
}

TEST(EntropyKnot, StoredWord) { EXPECT_EQ(PackKnot({1, 2, 3, 4}), 1u | 2u << 10 | 3u << 16 | 4u << 24); }

TEST(InterpolateKnots, ThroughKnotsAndBetween) {
  const std::vector<EntropyKnot> knots = {
      {900, 10, 250, 10}, {700, 20, 200, 20}, {400, 30, 100, 40}, {200, 40, 50, 80}};
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(InterpolateKnots(knots, 3, 12 + 4 * i), knots[static_cast<size_t>(i)]);
  // Class 18 is halfway between the inner knots: (-8 a + 72 b + 72 c - 8 d + 64) / 128.
  const EntropyKnot middle = InterpolateKnots(knots, 3, 18);
  EXPECT_EQ(middle.zero, (-8 * 900 + 72 * 700 + 72 * 400 - 8 * 200 + 64) / 128);
  EXPECT_EQ(middle.ratio, (-8 * 250 + 72 * 200 + 72 * 100 - 8 * 50 + 64) / 128);
  // A quarter of the way; the knot before the first is the first.
  EXPECT_EQ(InterpolateKnots(knots, 3, 13).bend, (-9 * 10 + 111 * 10 + 29 * 20 - 3 * 40 + 64) / 128);
}

TEST(InterpolateKnots, TailsRepeatAboveTheLastPlainClass) {
  const EntropyTables tables = DefaultEntropyTables(1);
  for (int k = 37; k <= 64; ++k) {
    const EntropyKnot far = InterpolateKnots(tables.knots[0], 0, k);
    const EntropyKnot near = InterpolateKnots(tables.knots[0], 0, 33 + (k - 33) % 4);
    EXPECT_EQ(far.ratio, near.ratio);
    EXPECT_EQ(far.bend, near.bend);
    EXPECT_EQ(far.one, near.one);
  }
}

// Symbols of a Gaussian of the class's standard deviation: the default tables stay close to its entropy.
TEST(DefaultEntropyTables, CloseToTheEntropyOfGaussians) {
  const EntropyTables tables = DefaultEntropyTables(1);
  const EntropyRates rates(tables);
  for (int k = 16; k <= 44; ++k) {
    const double deviation = std::exp2((k - 24) / 4.0);
    const auto below = [&](double x) { return 0.5 * std::erfc(-x / deviation / std::sqrt(2.0)); };
    double bits = 0, entropy = 0;
    for (int n = 0; n < EntropyRates::kMagnitudes; ++n) {
      const double p = below(n + 0.5) - below(n - 0.5);
      if (p <= 1e-15) continue;
      bits += (n == 0 ? 1 : 2) * p * static_cast<double>(rates.Bits(0, k)[n]);
      entropy -= (n == 0 ? 1 : 2) * p * std::log2(p);
    }
    EXPECT_LT(bits, entropy * 1.02 + 0.005) << k;
    EXPECT_GE(bits, entropy) << k;
  }
}

// Kraft's inequality holds and wastes nothing: the rates of all integers sum to 1 but for the escape.
TEST(EntropyRates, AreCodeLengths) {
  const EntropyRates rates(DefaultEntropyTables(8));
  for (int q = 0; q < 2; ++q) {
    for (int k = 0; k <= 36; ++k) {
      double sum = 0;
      for (int n = 0; n < kMaxMagnitude; ++n) {
        const double bits = static_cast<double>(rates.Bits(q, k)[n]);
        if (bits < 20) sum += (n == 0 ? 1 : 2) * std::exp2(-bits);
      }
      EXPECT_LE(sum, 1 - 2.0 / 4096 + 1e-6) << q << " " << k;
      EXPECT_GE(sum, 1 - 3.0 / 4096) << q << " " << k;
    }
  }
  EXPECT_EQ(rates.Bits(0, -5), rates.Bits(0, 0));
  EXPECT_EQ(rates.Bits(1, 80), rates.Bits(1, 64));
}

}  // namespace
}  // namespace mica
