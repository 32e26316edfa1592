#include "ops/codes/fit_tables.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace mica {
namespace {

TEST(FitTables, NearTheEntropyOfItsCounts) {
  // Laplacians of many scales, counted by class.
  std::mt19937_64 random(5);
  EntropyCounts counts;
  double entropy = 0;
  for (int k = 18; k <= 34; ++k) {
    const double scale = std::exp2((k - 24) / 4.0) / std::sqrt(2.0);
    const double ratio = std::exp(-1 / scale);
    std::geometric_distribution<int> tail(1 - ratio);
    const double zero = 1 - std::exp(-0.5 / scale);
    std::uniform_real_distribution<double> uniform;
    for (int i = 0; i < 20000; ++i) {
      const int n = uniform(random) < zero ? 0 : 1 + tail(random);
      counts.Add(0, k, n);
      entropy -=
          n == 0 ? std::log2(zero) : std::log2((1 - zero) / 2 * (1 - ratio)) + (n - 1) * std::log2(ratio);
    }
  }
  const EntropyTables tables = FitTables(DefaultEntropyTables(1), counts);
  const double bits = TablesBits(tables, counts);
  EXPECT_LT(bits, 1.004 * entropy);
  EXPECT_GT(bits, 0.995 * entropy);
  EXPECT_LE(tables.knots[0].size(), 6u);
}

}  // namespace
}  // namespace mica
