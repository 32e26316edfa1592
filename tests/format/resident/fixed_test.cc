#include "format/resident/fixed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>
namespace mica {
namespace {

TEST(FixedPlanes, ByHand) {
  // Five codes of 3 bits: two bits of codes 0, 2, 4 in one byte, of 1, 3 in the next; the third bits in one.
  const uint8_t codes[5 + 7] = {5, 6, 7, 1, 2};
  uint8_t planes[4] = {};
  ASSERT_EQ(PlaneBytes(3, 5), 3u);
  PackPlanes(codes, 5, 3, planes);
  EXPECT_EQ(planes[0], 1 | 3 << 2 | 2 << 4);
  EXPECT_EQ(planes[1], 2 | 1 << 2);
  EXPECT_EQ(planes[2], 1 | 1 << 1 | 1 << 2);
}

TEST(FixedPlanes, RoundTrip) {
  std::mt19937 random(1);
  for (const int width : {2, 3, 4, 6, 8}) {
    for (size_t n = 0; n <= kFixedBlock; ++n) {
      std::vector<uint8_t> codes(n + 7, 0), again(n, 255), planes(PlaneBytes(width, n) + 1, 77);
      for (size_t i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(random() % (1u << width));
      PackPlanes(codes.data(), n, width, planes.data());
      EXPECT_EQ(planes.back(), 77);
      UnpackPlanes(planes.data(), n, width, again.data());
      EXPECT_TRUE(std::equal(again.begin(), again.end(), codes.begin())) << width << " " << n;
    }
  }
}

}  // namespace
}  // namespace mica
