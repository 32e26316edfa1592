// A row of a product is the same however many rows there are: what makes results independent of chunks and ranks.
#include "ops/tile/tile_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "tests/ops/random_values.h"

namespace mica {
namespace {

TEST(PackedOperand, ARowDoesNotDependOnTheOthers) {
  for (const auto& [n, k] : std::vector<std::pair<size_t, size_t>>{{24, 24}, {50, 24}, {128, 96}, {96, 1376}, {17, 333}}) {
    const std::vector<float> b = RandomValues(n * k, 1, 1.0f), a = RandomValues(300 * k, 2, 1.0f);
    const PackedOperand packed(b.data(), n, k);
    std::vector<float> whole(300 * n), part(300 * n);
    packed.Multiply(a.data(), 300, whole.data());
    for (size_t r = 0; r < 300; r += 37) {
      double exact = 0;
      for (size_t i = 0; i < k; ++i) exact += double{a[r * k + i]} * b[i];
      EXPECT_NEAR(whole[r * n], exact, 1e-5 * static_cast<double>(k));
    }
    for (const size_t rows : {1, 2, 3, 7, 31, 32, 33, 37, 100, 127, 128, 129, 259}) {
      for (const size_t first : {size_t{0}, 300 - rows}) {
        packed.Multiply(a.data() + first * k, rows, part.data());
        EXPECT_EQ(std::memcmp(part.data(), whole.data() + first * n, rows * n * sizeof(float)), 0)
            << n << " x " << k << ", " << rows << " rows from " << first;
      }
    }
  }
}

}  // namespace
}  // namespace mica
