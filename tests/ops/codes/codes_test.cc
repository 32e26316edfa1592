// Packing and decoding whole matrices; round trips through files are in tests/io/packed.
#include "ops/codes/codes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/threads.h"
#include "ops/codes/entropy_model.h"
#include "tests/error_message.h"
#include "tests/format/entropy/testing.h"
#include "tests/format/fixed/testing.h"

namespace mica {
namespace {

std::vector<uint8_t> BytesOf(const PackedMatrix& packed, PartKind kind) {
  for (const PackedPart& part : packed.parts) {
    if (part.kind != kind) continue;
    std::vector<uint8_t> bytes;
    for (const std::byte byte : part.bytes) bytes.push_back(static_cast<uint8_t>(byte));
    return bytes;
  }
  return {};
}

// The example of docs/format.md: 2 rows, 3 columns of 3 bits.
TEST(PackFixed, BytesByHand) {
  FixedMatrix matrix;
  matrix.rows = 2;
  matrix.cols = 3;
  matrix.group_size = 2;
  matrix.order = {2, 0, 1};
  matrix.widths = {3, 3, 3};
  matrix.codes = Matrix<uint16_t>(2, 3);
  const uint16_t codes[6] = {1, 2, 3, 4, 5, 6};
  std::copy_n(codes, 6, matrix.codes.data());
  matrix.scales = Matrix<ScaleCode>(2, 2);
  const float scales[4] = {1.0f, 0.25f, 0.5f, 0.75f};
  for (size_t i = 0; i < 4; ++i) matrix.scales.data()[i] = ToScaleCode(scales[i]);
  matrix.zeros = Matrix<uint8_t>(2, 2);
  const uint8_t zeros[4] = {7, 0, 3, 4};
  std::copy_n(zeros, 4, matrix.zeros.data());

  const PackedMatrix packed = Pack(matrix);
  // Group 0: codes 1 2 | 4 5 = 001 010 100 101 from the lowest bit; group 1: 3 | 6.
  std::vector<uint8_t> stream(32);
  stream[0] = 0b00010001;   // 1 | 2 << 3 | (4 & 3) << 6
  stream[1] = 0b00001011;   // 4 >> 2 | 5 << 1
  stream[16] = 0b00110011;  // 3 | 6 << 3
  EXPECT_EQ(BytesOf(packed, PartKind::kCodes), stream);
  EXPECT_EQ(BytesOf(packed, PartKind::kScales), (std::vector<uint8_t>{0xF0, 0xD0, 0xE0, 0xE8}));
  EXPECT_EQ(BytesOf(packed, PartKind::kZeros), (std::vector<uint8_t>{0b00000111, 0b00100011}));
  EXPECT_EQ(BytesOf(packed, PartKind::kOrder), (std::vector<uint8_t>{2, 0, 0, 0, 1, 0}));
  EXPECT_EQ(BytesOf(packed, PartKind::kRuns), (std::vector<uint8_t>{0, 0, 0, 0, 3, 0, 0, 0}));
  EXPECT_EQ(packed.parts.size(), 5u);
  EXPECT_EQ(packed.code_bits(), 8u * 32);
  EXPECT_EQ(packed.bits(), 8u * (32 + 4 + 2 + 6 + 8));

  matrix.col_exponents = {0, 0, 0};
  EXPECT_EQ(Pack(matrix).parts.size(), 5u);
  matrix.col_exponents = {0, -3, 60};
  EXPECT_EQ(BytesOf(Pack(matrix), PartKind::kColExponents), (std::vector<uint8_t>{0, 0xFD, 60}));
  Matrix<float> weights(2, 3);
  Decode(matrix, weights);
  EXPECT_EQ(weights(0, 2), -6.0f);                 // stored column 0
  EXPECT_EQ(weights(0, 0), -5.0f / 8);             // stored column 1, 2^-3
  EXPECT_EQ(weights(1, 1), std::ldexp(1.5f, 60));  // stored column 2, (6 - 4) 0.75 2^60
}

// Keys put rows of a tile far from one another.
TEST(DecodeMatrix, DoesNotDependOnTheNumberOfThreads) {
  EntropyMatrix entropy = RandomEntropy(300, 37, 8, 1.0, 3);
  for (size_t r = 0; r < entropy.rows; ++r) entropy.row_key.push_back(static_cast<int16_t>((r * 7) % 5));
  const FixedMatrix fixed = RandomFixed(300, {{4, 30}, {3, 7}}, 16, MaskKind::Cells(2, 4), 3);
  const int threads = Threads();
  std::vector<Matrix<float>> decoded;
  for (const int count : {1, 3}) {
    SetThreads(count);
    decoded.emplace_back(600, 37, NAN);
    Decode(entropy, decoded.back().view().Rows(0, 300));
    Decode(fixed, decoded.back().view().Rows(300, 300));
  }
  SetThreads(threads);
  EXPECT_EQ(std::vector<float>(decoded[0].data(), decoded[0].data() + decoded[0].size()),
            std::vector<float>(decoded[1].data(), decoded[1].data() + decoded[1].size()));
}

}  // namespace
}  // namespace mica
