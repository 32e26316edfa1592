#include "format/mask/mask_rows.h"

#include <gtest/gtest.h>

#include <random>

#include "format/mask/mask_kind.h"

namespace mica {
namespace {

const MaskKind kTwoOfFour = MaskKind::Cells(2, 4), kFourOfEight = MaskKind::Cells(4, 8);

std::vector<uint8_t> Bytes(const std::vector<std::byte>& bytes) {
  std::vector<uint8_t> values;
  for (const std::byte byte : bytes) values.push_back(static_cast<uint8_t>(byte));
  return values;
}

TEST(PackedMask, BitmapHasTheFirstColumnInTheLowestBit) {
  std::vector<std::byte> bytes;
  AppendMaskRow(MaskKind::kBitmap, std::vector<uint8_t>{1, 0, 0, 1, 0, 0, 0, 0, 1, 1}, bytes);
  EXPECT_EQ(Bytes(bytes), (std::vector<uint8_t>{0b00001001, 0b00000011}));
}

// {0,1} has rank 0, {1,3} rank 4: 000 then 100, then the two columns that are left: 1, 0.
TEST(PackedMask, TwoOfFourByHand) {
  std::vector<std::byte> bytes;
  AppendMaskRow(kTwoOfFour, std::vector<uint8_t>{1, 1, 0, 0, 0, 1, 0, 1, 1, 0}, bytes);
  EXPECT_EQ(kTwoOfFour.RowBits(10), 8u);
  EXPECT_EQ(Bytes(bytes), (std::vector<uint8_t>{0b01100000}));
}

// {0,1,2,3} has rank 0, {0,1,2,4} rank 1, {4,5,6,7} rank 69.
TEST(PackedMask, FourOfEightByHand) {
  std::vector<std::byte> bytes;
  AppendMaskRow(kFourOfEight, std::vector<uint8_t>{1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1}, bytes);
  EXPECT_EQ(Bytes(bytes), (std::vector<uint8_t>{0b10000001, 0b00100010}));  // 1 | 69 << 7
}

TEST(PackedMask, RoundTripOfEveryPattern) {
  for (const MaskKind& kind : kMaskKinds) {
    if (kind.cols == 0) continue;
    const unsigned block = static_cast<unsigned>(kind.cols);
    std::vector<uint8_t> keep;
    for (unsigned turn = 0; turn < 9; ++turn) {
      for (unsigned map = 0; map < (1u << block); ++map) {
        if (static_cast<size_t>(std::popcount(map)) != kind.kept) continue;
        for (unsigned i = 0; i < block; ++i) keep.push_back((map >> i) & 1);
      }
    }
    keep.insert(keep.end(), {1, 0, 1});
    std::vector<std::byte> bytes;
    AppendMaskRow(kind, keep, bytes);
    EXPECT_EQ(bytes.size(), kind.RowBytes(keep.size()));
    std::vector<uint64_t> words((keep.size() + 63) / 64, ~uint64_t{0});
    ASSERT_TRUE(ReadMaskRow(kind, keep.size(), bytes, words.data()));
    for (size_t i = 0; i < keep.size(); ++i) EXPECT_EQ((words[i / 64] >> (i % 64)) & 1, keep[i]) << i;
    EXPECT_EQ(words.back() >> (keep.size() % 64), 0u);
  }
}

TEST(PackedMask, UnknownPatternIsReported) {
  const std::vector<std::byte> bytes = {std::byte{0b00000110}};  // rank 6 of 2:4
  uint64_t word = 0;
  EXPECT_FALSE(ReadMaskRow(kTwoOfFour, 4, bytes, &word));
  const std::vector<std::byte> wide = {std::byte{70}};
  EXPECT_FALSE(ReadMaskRow(kFourOfEight, 8, wide, &word));
  // In a row of whole words; such a cell is read as pruned.
  std::vector<std::byte> row(24, std::byte{0});
  uint64_t words[2];
  EXPECT_TRUE(ReadMaskRow(kTwoOfFour, 128, std::span(row).first(12), words));
  row[7] = std::byte{0b00001100};
  EXPECT_FALSE(ReadMaskRow(kTwoOfFour, 128, row, words));
  EXPECT_EQ(words[1], 0x3333333333330333u);
}

TEST(PackedMask, CountKeptOfAnyRange) {
  std::mt19937_64 random(3);
  std::vector<uint64_t> words(4);
  for (uint64_t& word : words) word = random();
  for (size_t first : {0u, 1u, 63u, 64u, 100u}) {
    for (size_t count : {0u, 1u, 63u, 64u, 65u, 128u, 156u}) {
      size_t expected = 0;
      for (size_t i = first; i < first + count; ++i) expected += (words[i / 64] >> (i % 64)) & 1;
      EXPECT_EQ(CountKept(words.data(), first, count), expected) << first << " " << count;
    }
  }
}

}  // namespace
}  // namespace mica
