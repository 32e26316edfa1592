#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "base/half.h"
#include "format/compressed_tensors/packing.h"
#include "format/compressed_tensors/parts.h"

namespace mica {
namespace {

std::vector<uint32_t> Words(const std::vector<std::byte>& bytes) {
  std::vector<uint32_t> words(bytes.size() / 4);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

std::vector<std::byte> Packed(const std::vector<uint8_t>& codes, int bits) {
  std::vector<std::byte> bytes(4 * WordsOf(codes.size(), bits, CodePacking::kDense), std::byte{0xAA});
  PackCodes(codes, bits, bytes);
  return bytes;
}

template <typename T>
std::vector<std::byte> Bytes(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<uint8_t> RandomCodes(size_t count, int bits, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<uint8_t> codes(count);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(generator() % (1u << bits));
  return codes;
}

// Codes of each width in words of 32 bits, worked by hand: code i has bits [i b, i b + b).
TEST(CompressedTensorsPacking, IsThatOfEachWidth) {
  EXPECT_EQ(Words(Packed({3, 0, 1, 2}, 2)), (std::vector<uint32_t>{0x93u}));  // 10 01 00 11
  // 11 codes of 3 bits are 33: the last one's top bit is in the second word.
  EXPECT_EQ(
      Words(Packed({1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 4}, 3)),
      (std::vector<uint32_t>{
          1u | 2u << 3 | 3u << 6 | 4u << 9 | 5u << 12 | 6u << 15 | 7u << 18 | 1u << 24 | 2u << 27, 1u}));
  EXPECT_EQ(Words(Packed({8, 7, 15, 0, 1, 2, 3, 4, 9}, 4)), (std::vector<uint32_t>{0x43210F78u, 0x9u}));
  // The seventh code of 5 bits has two bits in the first word and three in the second.
  EXPECT_EQ(Words(Packed({16, 1, 2, 3, 4, 5, 0b10110}, 5)),
            (std::vector<uint32_t>{16u | 1u << 5 | 2u << 10 | 3u << 15 | 4u << 20 | 5u << 25 | 0b10u << 30,
                                   0b101u}));
  EXPECT_EQ(Words(Packed({32, 1, 2, 3, 4, 0b110101}, 6)),
            (std::vector<uint32_t>{32u | 1u << 6 | 2u << 12 | 3u << 18 | 4u << 24 | 0b01u << 30, 0b1101u}));
  EXPECT_EQ(Words(Packed({64, 1, 2, 3, 0b1011011}, 7)),
            (std::vector<uint32_t>{64u | 1u << 7 | 2u << 14 | 3u << 21 | 0b1011u << 28, 0b101u}));
  EXPECT_EQ(Words(Packed({128, 127, 255, 0, 1}, 8)), (std::vector<uint32_t>{0x00FF7F80u, 0x1u}));
}

TEST(CompressedTensorsPacking, WordsAreAsManyAsEachPackingNeeds) {
  for (const int bits : {2, 4, 8}) {
    EXPECT_EQ(WordsOf(96, bits, CodePacking::kDense), WordsOf(96, bits, CodePacking::kWholeCodes));
  }
  const size_t whole[] = {0, 0, 0, 4, 0, 6, 7, 8};
  for (const int bits : {3, 5, 6, 7}) {
    EXPECT_EQ(WordsOf(32, bits, CodePacking::kDense), static_cast<size_t>(bits));
    EXPECT_EQ(WordsOf(32, bits, CodePacking::kWholeCodes), whole[bits]);
  }
}

TEST(CompressedTensorsPacking, CodesComeBack) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const size_t count : {1, 31, 32, 33, 384, 1000}) {
      const std::vector<uint8_t> codes = RandomCodes(count, bits, static_cast<uint32_t>(bits));
      const std::vector<std::byte> bytes = Packed(codes, bits);
      std::vector<uint8_t> read(count);
      UnpackCodes(bytes, bits, CodePacking::kDense, 0, read);
      EXPECT_EQ(read, codes) << bits << " bits, " << count;
      const size_t first = count / 3;
      read.resize(count - first);
      UnpackCodes(bytes, bits, CodePacking::kDense, first, read);
      EXPECT_EQ(read, std::vector<uint8_t>(codes.begin() + static_cast<std::ptrdiff_t>(first), codes.end()));
      for (size_t i = 0; i < count; ++i)
        ASSERT_EQ(CodeAcross(bytes, 1, bits, CodePacking::kDense, i), codes[i]) << bits << " bits";
    }
  }
}

// Before June 2026: floor(32 / b) codes in a word.
TEST(CompressedTensorsPacking, OldPackingIsRead) {
  const std::vector<std::byte> three =
      Bytes<uint32_t>({1u | 2u << 3 | 7u << 27, 5u | 6u << 3});  // codes 0, 1, 9, 10 and 11
  std::vector<uint8_t> codes(12);
  UnpackCodes(three, 3, CodePacking::kWholeCodes, 0, codes);
  EXPECT_EQ(codes, (std::vector<uint8_t>{1, 2, 0, 0, 0, 0, 0, 0, 0, 7, 5, 6}));
  EXPECT_EQ(CodeAcross(three, 1, 3, CodePacking::kWholeCodes, 9), 7u);
  EXPECT_EQ(CodeAcross(three, 1, 3, CodePacking::kWholeCodes, 11), 6u);
}

TEST(CompressedTensorsParts, AWeightIsItsScaleTimesTheCodeLessItsZero) {
  constexpr size_t kRows = 3, kCols = 64, kGroup = 32;
  CompressedTensorsParts parts;
  parts.rows = kRows;
  parts.cols = kCols;
  parts.group = kGroup;
  parts.bits = 5;
  const std::vector<uint8_t> codes = RandomCodes(kRows * kCols, 5, 9);
  std::vector<std::byte> words;
  for (size_t r = 0; r < kRows; ++r) {
    const auto begin = codes.begin() + static_cast<std::ptrdiff_t>(r * kCols);
    const std::vector<std::byte> row = Packed({begin, begin + kCols}, 5);
    words.insert(words.end(), row.begin(), row.end());
  }
  const std::vector<float> scales = {0.5f, -0.25f, 2.0f, 1.5f, 0.0f, 1.0f};
  std::vector<F16> half;
  std::vector<BF16> brain;
  for (const float scale : scales) {
    half.push_back(ToF16(scale));
    brain.push_back(ToBF16(scale));
  }
  const std::vector<std::byte> f16 = Bytes(half), bf16 = Bytes(brain), f32 = Bytes(scales);
  parts.words = words;
  Matrix<float> values(kRows, kCols);
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
    parts.scale_dtype = dtype;
    parts.scales = dtype == DType::kF16 ? f16 : dtype == DType::kBF16 ? bf16 : f32;
    DecodeRows(parts, 0, values);
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t c = 0; c < kCols; ++c)
        ASSERT_EQ(values(r, c), scales[2 * r + c / kGroup] * static_cast<float>(codes[r * kCols + c] - 16));
    }
  }
  EXPECT_EQ(BitsOf(parts).codes, 32 * kRows * 10);
  EXPECT_EQ(BitsOf(parts).scales, 32 * kRows * 2);

  // Zero points, packed along rows: in column g the codes 1, 2 and 31 of three rows, then 4, 0 and 7.
  const std::vector<std::byte> zeros = Bytes<uint32_t>({1u | 2u << 5 | 31u << 10, 4u | 7u << 10});
  parts.zeros = zeros;
  DecodeRows(parts, 0, values);
  const int zero_of[kRows][2] = {{1, 4}, {2, 0}, {31, 7}};
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t c = 0; c < kCols; ++c)
      ASSERT_EQ(values(r, c), scales[2 * r + c / kGroup] *
                                  static_cast<float>(codes[r * kCols + c] - zero_of[r][c / kGroup]));
  }

  // Columns whose groups are named.
  std::vector<int32_t> group_of(kCols);
  for (size_t c = 0; c < kCols; ++c) group_of[c] = c % 3 == 0 ? 1 : 0;
  const std::vector<std::byte> named = Bytes(group_of);
  parts.group_of = named;
  DecodeRows(parts, 0, values);
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t c = 0; c < kCols; ++c) {
      const auto g = static_cast<size_t>(group_of[c]);
      ASSERT_EQ(values(r, c), scales[2 * r + g] * static_cast<float>(codes[r * kCols + c] - zero_of[r][g]));
    }
  }
  std::vector<float> part(17);
  DecodePart(parts, 2, 30, part);
  for (size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i], values(2, 30 + i));
}

}  // namespace
}  // namespace mica
