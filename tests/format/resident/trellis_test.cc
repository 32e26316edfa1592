#include "format/resident/trellis.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <vector>

namespace mica {
namespace {

TEST(TrellisCodes, HoldIntegersAndKeepTheirParity) {
  for (const int width : {2, 3, 4, 5, 6}) {
    const int half = HalfOfWidth(width);
    for (int n = -half; n < half; ++n) {
      EXPECT_TRUE(HasCode(n, width));
      EXPECT_EQ(IntegerOfCode(CodeOf(n, width), width), n) << width;
      EXPECT_EQ(NearestWithCode(n, width), n);
    }
    for (int n = -1000; n <= 1000; ++n) {
      const int near = NearestWithCode(n, width);
      EXPECT_TRUE(HasCode(near, width)) << n;
      EXPECT_EQ(near & 1, n & 1);
      EXPECT_LE(std::abs(n) < half ? 0 : std::abs(near), half);
      if (width > 2 && !HasCode(n, width)) {
        EXPECT_GT(near * n, 0) << n << " " << width;
      }
    }
    EXPECT_FALSE(HasCode(half, width));
    EXPECT_FALSE(HasCode(-half - 1, width));
  }
}

TEST(TrellisCodes, BlocksGiveBackTheirCodes) {
  std::mt19937 random(1);
  for (const int width : kTrellisWidths) {
    for (const size_t cols : {1, 64, 65, 200, 256, 257, 600, 1024}) {
      for (const size_t rows : {1, 17, 40}) {
        const TrellisLayout layout = {rows, cols, 16, 8, width};
        std::vector<uint8_t> bytes(layout.bytes() + 1, 0xAB);
        size_t end = 0;
        for (size_t tile = 0; tile < layout.tiles(); ++tile) {
          for (size_t block = 0; block < layout.blocks(); ++block) {
            const size_t count = layout.RowsOf(tile), in_block = layout.StripsOf(block) * kTrellisStrip;
            std::vector<uint8_t> codes(count * kTrellisBlock);
            for (uint8_t& code : codes) code = static_cast<uint8_t>(random() % (1u << width));
            ASSERT_EQ(layout.Begin(tile, block), end);
            end += count * layout.StripsOf(block) * layout.strip_bytes();
            PackBlock(layout, tile, block, codes.data(), bytes.data() + layout.Begin(tile, block));
            for (size_t r = 0; r < count; ++r) {
              uint8_t row[kTrellisBlock];
              UnpackRow(layout, tile, block, bytes.data() + layout.Begin(tile, block), r, row);
              for (size_t i = 0; i < in_block; ++i) ASSERT_EQ(row[i], codes[r * kTrellisBlock + i]) << width;
            }
          }
        }
        EXPECT_EQ(end, layout.bytes());
        EXPECT_EQ(bytes.back(), 0xAB);  // nothing behind them is written
      }
    }
  }
}

TEST(TrellisExceptions, ByHand) {
  std::vector<TrellisException> list;
  size_t at = 0;
  AddException(3, -8, 4, at, list);            // three columns on, two units less
  AddException(3 + 1023 + 5, 4, 4, at, list);  // too far for one step
  AddException(1031, 2 * 35, 2, at, list);     // more than one entry holds, in the same column
  const std::vector<TrellisException> expected = {static_cast<TrellisException>(3 | (62 << 10)), 1023,
                                                  5 | 1 << 10, 31 << 10, 4 << 10};
  EXPECT_EQ(list, expected);
  EXPECT_EQ(at, 1031u);
}

TEST(TrellisExceptions, GiveBackColumnsAndDifferences) {
  std::mt19937 random(5);
  for (const int unit : {1, 2, 4}) {
    std::vector<int> differences(20000, 0), again(20000, 0);
    std::vector<TrellisException> list;
    size_t at = 0;
    for (size_t col = random() % 3000; col < differences.size(); col += random() % 3000) {
      if (differences[col] != 0) continue;
      differences[col] = unit * (static_cast<int>(random() % 400) - 200);
      AddException(col, differences[col], unit, at, list);
    }
    size_t col = 0;
    for (const TrellisException exception : list) {
      col += static_cast<size_t>(ColsOf(exception));
      ASSERT_LT(col, again.size());
      again[col] += UnitsOf(exception) * unit;
    }
    EXPECT_EQ(again, differences);
  }
}

// Bytes run through the tables go the way of the machine.
TEST(TrellisTables, SayLevelsAndNextStates) {
  std::mt19937 random(2);
  for (const int states : {1, 4, 8}) {
    const Trellis& trellis = TrellisOf(states);
    for (const int width : {2, 3, 4, 5, 6}) {
      const TrellisTables tables = MakeTrellisTables(states, width);
      size_t machine = 0;
      int state = tables.start;
      for (int i = 0; i < 2000; ++i) {
        const int code = static_cast<int>(random() % (1u << width)), n = IntegerOfCode(code, width);
        const int at = width == 6 ? code | (state & 0x40) : (code | state) & 63;
        ASSERT_EQ(tables.level[static_cast<size_t>(at)] - tables.offset,
                  trellis.Level(n, trellis.quantiser[machine]));
        const int both = width == 6 ? (code & 0x20) | state : code | state;
        state = tables.next[static_cast<size_t>(both >> tables.next_shift & 63)];
        machine = trellis.next[machine][static_cast<size_t>(n & 1)];
      }
    }
  }
}

}  // namespace
}  // namespace mica
