#include "ops/packed_product/int8_inputs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "base/matrix.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

TEST(Int8Inputs, AreTheNearestIntegersOfEachBlock) {
  const std::vector<uint32_t> begin = {0, 1, 64, 65, 320, 350};
  const size_t cols = 350, stride = 384, blocks = begin.size() - 1;
  for (const bool with_order : {false, true}) {
    const std::vector<float> values = RandomValues(3 * cols, 1), factors = RandomValues(cols, 2);
    Matrix<float> x(3, cols);
    std::copy(values.begin(), values.end(), x.data());
    for (size_t c = 65; c < 320; ++c) x(1, c) = 0;       // a block of zeros
    for (size_t c = 65; c < 320; ++c) x(2, c) = 1e-40f;  // as good as zeros
    std::vector<uint32_t> order;
    for (size_t c = 0; with_order && c < cols; ++c) order.push_back(static_cast<uint32_t>((c * 3) % cols));
    Int8Inputs out;
    out.values.assign(5, 77);
    RoundToInt8(x, factors, order, begin, stride, out);
    ASSERT_EQ(out.values.size(), 3 * stride);
    for (size_t t = 0; t < 3; ++t) {
      for (size_t b = 0; b < blocks; ++b) {
        const float scale = out.scales[t * blocks + b];
        int sum = 0, largest = 0;
        for (size_t c = begin[b]; c < begin[b + 1]; ++c) {
          const int value = out.values[t * stride + c];
          const float exact = x(t, with_order ? order[c] : c) * factors[c];
          EXPECT_NEAR(exact, scale * static_cast<float>(value), 0.5001f * scale + 1e-30f);
          largest = std::max(largest, std::abs(value));
          sum += value;
        }
        EXPECT_EQ(out.sums[t * blocks + b], sum);
        EXPECT_EQ(largest, scale == 0 ? 0 : 127);
        if (!with_order) {
          EXPECT_EQ(scale == 0, b == 3 && t > 0);
        }
      }
      for (size_t c = cols; c < stride; ++c) EXPECT_EQ(out.values[t * stride + c], 0);
    }
  }
}

}  // namespace
}  // namespace mica
