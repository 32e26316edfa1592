#include "format/mask/mask_rows.h"

#include <gtest/gtest.h>

#include <random>

#include "format/mask/sparsity_pattern.h"

namespace mica {
namespace {

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
  AppendMaskRow(MaskKind::kTwoOfFour, std::vector<uint8_t>{1, 1, 0, 0, 0, 1, 0, 1, 1, 0}, bytes);
  EXPECT_EQ(MaskRowBits(MaskKind::kTwoOfFour, 10), 8u);
  EXPECT_EQ(Bytes(bytes), (std::vector<uint8_t>{0b01100000}));
}

// {0,1,2,3} has rank 0, {0,1,2,4} rank 1, {4,5,6,7} rank 69.
TEST(PackedMask, FourOfEightByHand) {
  std::vector<std::byte> bytes;
  AppendMaskRow(MaskKind::kFourOfEight, std::vector<uint8_t>{1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1},
                bytes);
  EXPECT_EQ(Bytes(bytes), (std::vector<uint8_t>{0b10000001, 0b00100010}));  // 1 | 69 << 7
}

TEST(PackedMask, RoundTripOfEveryPattern) {
  for (const auto& [kind, block, kept] :
       {std::tuple{MaskKind::kTwoOfFour, 4u, 2}, std::tuple{MaskKind::kFourOfEight, 8u, 4}}) {
    std::vector<uint8_t> keep;
    for (unsigned map = 0; map < (1u << block); ++map) {
      if (std::popcount(map) != kept) continue;
      for (unsigned i = 0; i < block; ++i) keep.push_back((map >> i) & 1);
    }
    keep.insert(keep.end(), {1, 0, 1});
    std::vector<std::byte> bytes;
    AppendMaskRow(kind, keep, bytes);
    EXPECT_EQ(bytes.size(), MaskRowBytes(kind, keep.size()));
    std::vector<uint64_t> words((keep.size() + 63) / 64, ~uint64_t{0});
    ASSERT_TRUE(ReadMaskRow(kind, keep.size(), bytes, words.data()));
    for (size_t i = 0; i < keep.size(); ++i) EXPECT_EQ((words[i / 64] >> (i % 64)) & 1, keep[i]) << i;
    EXPECT_EQ(words.back() >> (keep.size() % 64), 0u);
  }
}

TEST(PackedMask, UnknownPatternIsReported) {
  const std::vector<std::byte> bytes = {std::byte{0b00000110}};  // rank 6 of 2:4
  uint64_t word = 0;
  EXPECT_FALSE(ReadMaskRow(MaskKind::kTwoOfFour, 4, bytes, &word));
  const std::vector<std::byte> wide = {std::byte{70}};
  EXPECT_FALSE(ReadMaskRow(MaskKind::kFourOfEight, 8, wide, &word));
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

TEST(PackedMask, Names) {
  for (const MaskKind kind :
       {MaskKind::kNone, MaskKind::kBitmap, MaskKind::kTwoOfFour, MaskKind::kFourOfEight}) {
    MaskKind parsed = MaskKind::kNone;
    EXPECT_TRUE(ParseMaskName(MaskName(kind), parsed));
    EXPECT_EQ(parsed, kind);
  }
  MaskKind parsed;
  EXPECT_FALSE(ParseMaskName("3:4", parsed));
}

}  // namespace
}  // namespace mica
