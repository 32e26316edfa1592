#include "format/entropy/rans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "format/entropy/tables.h"

namespace mica {
namespace {

// Every integer in every kind of class comes back, escapes and raw bits included.
TEST(RansTable, RoundTrip) {
  std::mt19937 random(9);
  for (const int k : {0, 8, 24, 36, 37, 44, 64}) {
    const EntropyTables tables = DefaultEntropyTables(1);
    const RansTable table(MakeFrequencyTable(InterpolateKnots(tables.knots[0], 0, k)), RawBits(k));
    std::vector<int> integers = {0, 1, -1, 63, -63, 64, -64, 65, 1000, -1000, 32767, -32767};
    for (int i = 0; i < 3000; ++i) integers.push_back(static_cast<int>(random() % 41) - 20);
    for (int i = 0; i < 300; ++i) integers.push_back(static_cast<int>(random() % 65535) - 32767);
    uint32_t state = kRansLow;
    std::vector<uint16_t> reversed;
    for (size_t i = integers.size(); i-- > 0;) table.Encode(integers[i], state, reversed);
    std::reverse(reversed.begin(), reversed.end());
    const size_t words = reversed.size();
    reversed.insert(reversed.end(), 3, uint16_t{0});
    const std::byte* next = reinterpret_cast<const std::byte*>(reversed.data());
    const std::byte* end = next + 2 * words;
    for (size_t i = 0; i < integers.size(); ++i)
      ASSERT_EQ(table.Decode(state, next), integers[i]) << k << " " << i;
    EXPECT_EQ(next, end);
    EXPECT_EQ(state, kRansLow);
  }
}

}  // namespace
}  // namespace mica
