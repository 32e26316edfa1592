#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/half.h"
#include "format/gguf/codebooks.h"
#include "format/gguf/decode.h"

namespace mica {
namespace {

// A block is put together here bit by bit from codes chosen at will, by the format's description turned
// round: where bit b of the code of value i is written, not how it is read.
class Block {
 public:
  explicit Block(GgmlType type) : type_(type), bytes_(FactsOf(type).block_bytes) {}

  // The `count` low bits of `value` at bit `bit` of byte `byte`.
  void Put(size_t byte, int bit, int count, uint32_t value) {
    for (int b = 0; b < count; ++b) {
      const auto one = static_cast<std::byte>(((value >> b) & 1u) << (bit + b));
      ASSERT_EQ(written_[byte] & one, std::byte{0});
      bytes_[byte] |= one;
      written_[byte] |= static_cast<std::byte>(1u << (bit + b));
    }
  }
  void PutHalf(size_t byte, float value) {
    const uint32_t bits = ToF16(value).bits;
    Put(byte, 0, 8, bits & 0xFF);
    Put(byte + 1, 0, 8, bits >> 8);
  }
  // All bits of the block have been put.
  bool IsFull() const {
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (written_[i] != std::byte{0xFF}) return false;
    }
    return true;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::vector<float> Decode() const {
    std::vector<float> values(FactsOf(type_).block_cols, std::numeric_limits<float>::quiet_NaN());
    DecodeRow(type_, bytes_, values);
    return values;
  }

 private:
  GgmlType type_;
  std::vector<std::byte> bytes_;
  std::array<std::byte, 512> written_ = {};
};

// Codes of `count` values below `levels` without a pattern that a wrong layout would keep.
std::vector<uint32_t> Codes(size_t count, uint32_t levels, uint32_t seed = 1) {
  std::vector<uint32_t> codes(count);
  for (uint32_t& code : codes) {
    seed = seed * 1664525u + 1013904223u;
    code = (seed >> 16) % levels;
  }
  return codes;
}

void ExpectValues(const Block& block, const std::vector<double>& expected) {
  EXPECT_TRUE(block.IsFull());
  const std::vector<float> values = block.Decode();
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], static_cast<float>(expected[i])) << i;
}

constexpr double kD = 0.0625 + 0.001953125, kM = -1.75;  // exact in FP16

TEST(GgufDecodeTest, PlainTypesAreWidened) {
  const std::vector<float> given = {1.0f, -0.0f, 3.140625f, -65504.0f, 0x1p-24f};
  std::vector<F16> half;
  std::vector<BF16> brain;
  for (const float value : given) {
    half.push_back(ToF16(value));
    brain.push_back(ToBF16(value));
  }
  std::vector<float> values(given.size());
  DecodeRow(GgmlType::kF32, std::as_bytes(std::span(given)), values);
  EXPECT_EQ(values, given);
  DecodeRow(GgmlType::kF16, std::as_bytes(std::span(half)), values);
  EXPECT_EQ(values, given);
  DecodeRow(GgmlType::kBF16, std::as_bytes(std::span(brain)), values);
  EXPECT_EQ(values, (std::vector<float>{1.0f, -0.0f, 3.140625f, -65536.0f, 0x1p-24f}));
  EXPECT_TRUE(std::signbit(values[1]));
}

// Values 0 to 15 in the low halves of 16 bytes, 16 to 31 in the high ones.
void PutNibbles(Block& block, size_t byte, const std::vector<uint32_t>& codes) {
  for (size_t i = 0; i < 32; ++i) block.Put(byte + i % 16, i < 16 ? 0 : 4, 4, codes[i]);
}

TEST(GgufDecodeTest, Q4_0) {
  const std::vector<uint32_t> q = Codes(32, 16);
  Block block(GgmlType::kQ4_0);
  block.PutHalf(0, -kD);
  PutNibbles(block, 2, q);
  std::vector<double> expected;
  for (size_t i = 0; i < 32; ++i) expected.push_back(-kD * (static_cast<int>(q[i]) - 8));
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, Q4_1) {
  const std::vector<uint32_t> q = Codes(32, 16);
  Block block(GgmlType::kQ4_1);
  block.PutHalf(0, kD);
  block.PutHalf(2, kM);
  PutNibbles(block, 4, q);
  std::vector<double> expected;
  for (size_t i = 0; i < 32; ++i) expected.push_back(kD * q[i] + kM);
  ExpectValues(block, expected);
}

// The fifth bits of values 0 to 31 from bit 0 of `byte` on.
void PutFifthBits(Block& block, size_t byte, const std::vector<uint32_t>& codes) {
  for (size_t i = 0; i < 32; ++i) block.Put(byte + i / 8, static_cast<int>(i % 8), 1, codes[i] >> 4);
}

TEST(GgufDecodeTest, Q5_0) {
  const std::vector<uint32_t> q = Codes(32, 32);
  Block block(GgmlType::kQ5_0);
  block.PutHalf(0, kD);
  PutFifthBits(block, 2, q);
  PutNibbles(block, 6, q);
  std::vector<double> expected;
  for (size_t i = 0; i < 32; ++i) expected.push_back(kD * (static_cast<int>(q[i]) - 16));
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, Q5_1) {
  const std::vector<uint32_t> q = Codes(32, 32);
  Block block(GgmlType::kQ5_1);
  block.PutHalf(0, kD);
  block.PutHalf(2, kM);
  PutFifthBits(block, 4, q);
  PutNibbles(block, 8, q);
  std::vector<double> expected;
  for (size_t i = 0; i < 32; ++i) expected.push_back(kD * q[i] + kM);
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, Q8_0) {
  const std::vector<uint32_t> q = Codes(32, 256);
  Block block(GgmlType::kQ8_0);
  block.PutHalf(0, kD);
  std::vector<double> expected;
  for (size_t i = 0; i < 32; ++i) {
    block.Put(2 + i, 0, 8, q[i]);
    expected.push_back(kD * (q[i] < 128 ? static_cast<int>(q[i]) : static_cast<int>(q[i]) - 256));
  }
  ExpectValues(block, expected);
}

// Two bits of 256 values in 64 bytes: a byte holds four values 32 apart.
void PutPairs(Block& block, size_t byte, const std::vector<uint32_t>& codes) {
  for (size_t half = 0; half < 2; ++half) {
    for (size_t quarter = 0; quarter < 4; ++quarter) {
      for (size_t l = 0; l < 32; ++l)
        block.Put(byte + 32 * half + l, static_cast<int>(2 * quarter), 2,
                  codes[128 * half + 32 * quarter + l]);
    }
  }
}

TEST(GgufDecodeTest, Q2_K) {
  const std::vector<uint32_t> q = Codes(256, 4), s = Codes(16, 16, 2), m = Codes(16, 16, 3);
  Block block(GgmlType::kQ2_K);
  for (size_t g = 0; g < 16; ++g) {
    block.Put(g, 0, 4, s[g]);
    block.Put(g, 4, 4, m[g]);
  }
  PutPairs(block, 16, q);
  block.PutHalf(80, kD);
  block.PutHalf(82, -kM);
  std::vector<double> expected;
  for (size_t i = 0; i < 256; ++i) expected.push_back(kD * s[i / 16] * q[i] + kM * m[i / 16]);
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, Q3_K) {
  const std::vector<uint32_t> q = Codes(256, 8), s = Codes(16, 64, 2);
  Block block(GgmlType::kQ3_K);
  for (size_t i = 0; i < 256; ++i) block.Put(i % 32, static_cast<int>(i / 32), 1, q[i] >> 2);
  PutPairs(block, 32, q);
  // Bytes 0 to 7 of the scales hold two low halves each, bytes 8 to 11 four pairs of high bits.
  const std::array<std::array<size_t, 2>, 8> low = {
      {{0, 8}, {1, 9}, {2, 10}, {3, 11}, {4, 12}, {5, 13}, {6, 14}, {7, 15}}};
  const std::array<std::array<size_t, 4>, 4> high = {
      {{0, 4, 8, 12}, {1, 5, 9, 13}, {2, 6, 10, 14}, {3, 7, 11, 15}}};
  for (size_t byte = 0; byte < 8; ++byte) {
    for (size_t k = 0; k < 2; ++k) block.Put(96 + byte, static_cast<int>(4 * k), 4, s[low[byte][k]]);
  }
  for (size_t byte = 0; byte < 4; ++byte) {
    for (size_t k = 0; k < 4; ++k) block.Put(104 + byte, static_cast<int>(2 * k), 2, s[high[byte][k]] >> 4);
  }
  block.PutHalf(108, kD);
  std::vector<double> expected;
  for (size_t i = 0; i < 256; ++i)
    expected.push_back(kD * (static_cast<int>(s[i / 16]) - 32) * (static_cast<int>(q[i]) - 4));
  ExpectValues(block, expected);
}

// Eight scales and eight offsets of six bits in 12 bytes.
void PutSixBits(Block& block, size_t byte, const std::vector<uint32_t>& s, const std::vector<uint32_t>& m) {
  for (size_t j = 0; j < 4; ++j) {
    block.Put(byte + j, 0, 6, s[j]);
    block.Put(byte + j, 6, 2, s[j + 4] >> 4);
    block.Put(byte + 4 + j, 0, 6, m[j]);
    block.Put(byte + 4 + j, 6, 2, m[j + 4] >> 4);
    block.Put(byte + 8 + j, 0, 4, s[j + 4]);
    block.Put(byte + 8 + j, 4, 4, m[j + 4]);
  }
}

// Four bits of 256 values in 128 bytes: a byte holds two values 32 apart.
void PutQuads(Block& block, size_t byte, const std::vector<uint32_t>& codes) {
  for (size_t p = 0; p < 4; ++p) {
    for (size_t l = 0; l < 32; ++l) {
      block.Put(byte + 32 * p + l, 0, 4, codes[64 * p + l]);
      block.Put(byte + 32 * p + l, 4, 4, codes[64 * p + 32 + l]);
    }
  }
}

TEST(GgufDecodeTest, Q4_K) {
  const std::vector<uint32_t> q = Codes(256, 16), s = Codes(8, 64, 2), m = Codes(8, 64, 3);
  Block block(GgmlType::kQ4_K);
  block.PutHalf(0, kD);
  block.PutHalf(2, -kM);
  PutSixBits(block, 4, s, m);
  PutQuads(block, 16, q);
  std::vector<double> expected;
  for (size_t i = 0; i < 256; ++i) expected.push_back(kD * s[i / 32] * q[i] + kM * m[i / 32]);
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, Q5_K) {
  const std::vector<uint32_t> q = Codes(256, 32), s = Codes(8, 64, 2), m = Codes(8, 64, 3);
  Block block(GgmlType::kQ5_K);
  block.PutHalf(0, kD);
  block.PutHalf(2, -kM);
  PutSixBits(block, 4, s, m);
  for (size_t i = 0; i < 256; ++i) block.Put(16 + i % 32, static_cast<int>(i / 32), 1, q[i] >> 4);
  PutQuads(block, 48, q);
  std::vector<double> expected;
  for (size_t i = 0; i < 256; ++i) expected.push_back(kD * s[i / 32] * q[i] + kM * m[i / 32]);
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, Q6_K) {
  const std::vector<uint32_t> q = Codes(256, 64), s = Codes(16, 256, 2);
  Block block(GgmlType::kQ6_K);
  std::vector<uint32_t> top(256);
  for (size_t half = 0; half < 2; ++half) {
    for (size_t l = 0; l < 64; ++l) {
      block.Put(64 * half + l, 0, 4, q[128 * half + l]);
      block.Put(64 * half + l, 4, 4, q[128 * half + 64 + l]);
    }
  }
  for (size_t i = 0; i < 256; ++i) top[i] = q[i] >> 4;
  PutPairs(block, 128, top);
  std::vector<double> scales;
  for (size_t g = 0; g < 16; ++g) {
    block.Put(192 + g, 0, 8, s[g]);
    scales.push_back(s[g] < 128 ? s[g] : static_cast<double>(s[g]) - 256);
  }
  block.PutHalf(208, kD);
  std::vector<double> expected;
  for (size_t i = 0; i < 256; ++i) expected.push_back(kD * scales[i / 16] * (static_cast<int>(q[i]) - 32));
  ExpectValues(block, expected);
}

constexpr std::array<double, 16> kLevels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};

TEST(GgufDecodeTest, IQ4_NL) {
  const std::vector<uint32_t> q = Codes(32, 16);
  Block block(GgmlType::kIQ4_NL);
  block.PutHalf(0, kD);
  PutNibbles(block, 2, q);
  std::vector<double> expected;
  for (size_t i = 0; i < 32; ++i) expected.push_back(kD * kLevels[q[i]]);
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, IQ4_XS) {
  const std::vector<uint32_t> q = Codes(256, 16), s = Codes(8, 64, 2);
  Block block(GgmlType::kIQ4_XS);
  block.PutHalf(0, kD);
  for (size_t g = 0; g < 8; ++g) {
    block.Put(2 + g / 4, static_cast<int>(g % 4 * 2), 2, s[g] >> 4);
    block.Put(4 + g / 2, static_cast<int>(g % 2 * 4), 4, s[g]);
    PutNibbles(block, 8 + 16 * g, {q.begin() + static_cast<ptrdiff_t>(32 * g), q.end()});
  }
  std::vector<double> expected;
  for (size_t i = 0; i < 256; ++i)
    expected.push_back(kD * (static_cast<int>(s[i / 32]) - 32) * kLevels[q[i]]);
  ExpectValues(block, expected);
}

// The level of value k of a vector of a codebook.
uint32_t LevelOf8(uint32_t vector, size_t k) { return (vector >> (2 * k)) % 4; }
uint32_t LevelOf4(uint32_t vector, size_t k) { return (vector >> (3 * k)) % 8; }
// Eight signs as seven bits and as factors; the eighth makes the number of minuses even.
std::array<double, 8> EvenSigns(uint32_t seven) {
  std::array<double, 8> signs;
  double product = 1;
  for (size_t k = 0; k < 7; ++k) product *= signs[k] = (seven >> k) % 2 == 1 ? -1 : 1;
  signs[7] = product;
  return signs;
}

constexpr std::array<double, 3> kThreeLevels = {8, 25, 43};

TEST(GgufDecodeTest, IQ2_XXS) {
  const std::vector<uint32_t> q = Codes(32, 256), signs = Codes(32, 128, 2), s = Codes(8, 16, 3);
  Block block(GgmlType::kIQ2_XXS);
  block.PutHalf(0, kD);
  std::vector<double> expected;
  for (size_t v = 0; v < 32; ++v) {
    const size_t group = 2 + v / 4 * 8;
    block.Put(group + v % 4, 0, 8, q[v]);
    for (size_t bit = 0; bit < 7; ++bit) {
      const size_t at = 7 * (v % 4) + bit;
      block.Put(group + 4 + at / 8, static_cast<int>(at % 8), 1, signs[v] >> bit);
    }
    if (v % 4 == 3) block.Put(group + 7, 4, 4, s[v / 4]);
    for (size_t k = 0; k < 8; ++k) {
      const double level = kThreeLevels.at(LevelOf8(gguf::kCodebookIQ2_XXS[q[v]], k));
      expected.push_back(kD * (0.5 + s[v / 4]) / 4 * level * EvenSigns(signs[v])[k]);
    }
  }
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, IQ2_XS) {
  const std::vector<uint32_t> q = Codes(32, 512), signs = Codes(32, 128, 2), s = Codes(16, 16, 3);
  Block block(GgmlType::kIQ2_XS);
  block.PutHalf(0, kD);
  std::vector<double> expected;
  for (size_t v = 0; v < 32; ++v) {
    block.Put(2 + 2 * v, 0, 8, q[v]);
    block.Put(3 + 2 * v, 0, 1, q[v] >> 8);
    block.Put(3 + 2 * v, 1, 7, signs[v]);
    for (size_t k = 0; k < 8; ++k) {
      const double level = kThreeLevels.at(LevelOf8(gguf::kCodebookIQ2_XS[q[v]], k));
      expected.push_back(kD * (0.5 + s[v / 2]) / 4 * level * EvenSigns(signs[v])[k]);
    }
  }
  for (size_t g = 0; g < 16; ++g) block.Put(66 + g / 2, static_cast<int>(g % 2 * 4), 4, s[g]);
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, IQ2_S) {
  const std::vector<uint32_t> q = Codes(32, 1024), signs = Codes(32, 256, 2), s = Codes(16, 16, 3);
  Block block(GgmlType::kIQ2_S);
  block.PutHalf(0, kD);
  std::vector<double> expected;
  for (size_t v = 0; v < 32; ++v) {
    block.Put(2 + v, 0, 8, q[v]);
    block.Put(34 + v, 0, 8, signs[v]);
    block.Put(66 + v / 4, static_cast<int>(v % 4 * 2), 2, q[v] >> 8);
    for (size_t k = 0; k < 8; ++k) {
      const double level = kThreeLevels.at(LevelOf8(gguf::kCodebookIQ2_S[q[v]], k));
      expected.push_back(kD * (0.5 + s[v / 2]) / 4 * level * ((signs[v] >> k) % 2 == 1 ? -1 : 1));
    }
  }
  for (size_t g = 0; g < 16; ++g) block.Put(74 + g / 2, static_cast<int>(g % 2 * 4), 4, s[g]);
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, IQ3_XXS) {
  const std::array<double, 8> levels = {4, 12, 20, 28, 36, 44, 52, 62};
  const std::vector<uint32_t> q = Codes(64, 256), signs = Codes(32, 128, 2), s = Codes(8, 16, 3);
  Block block(GgmlType::kIQ3_XXS);
  block.PutHalf(0, kD);
  for (size_t v = 0; v < 64; ++v) block.Put(2 + v, 0, 8, q[v]);
  std::vector<double> expected;
  for (size_t pair = 0; pair < 32; ++pair) {
    for (size_t bit = 0; bit < 7; ++bit) {
      const size_t at = 7 * (pair % 4) + bit;
      block.Put(66 + pair / 4 * 4 + at / 8, static_cast<int>(at % 8), 1, signs[pair] >> bit);
    }
    if (pair % 4 == 3) block.Put(66 + pair / 4 * 4 + 3, 4, 4, s[pair / 4]);
    for (size_t k = 0; k < 8; ++k) {
      const double level = levels.at(LevelOf4(gguf::kCodebookIQ3_XXS[q[2 * pair + k / 4]], k % 4));
      expected.push_back(kD * (0.5 + s[pair / 4]) / 2 * level * EvenSigns(signs[pair])[k]);
    }
  }
  ExpectValues(block, expected);
}

TEST(GgufDecodeTest, IQ3_S) {
  const std::vector<uint32_t> q = Codes(64, 512), signs = Codes(32, 256, 2), s = Codes(8, 16, 3);
  Block block(GgmlType::kIQ3_S);
  block.PutHalf(0, kD);
  std::vector<double> expected;
  for (size_t v = 0; v < 64; ++v) {
    block.Put(2 + v, 0, 8, q[v]);
    block.Put(66 + v / 8, static_cast<int>(v % 8), 1, q[v] >> 8);
    for (size_t k = 0; k < 4; ++k) {
      const double level = 2.0 * LevelOf4(gguf::kCodebookIQ3_S[q[v]], k) + 1;
      const uint32_t minus = (signs[v / 2] >> (v % 2 * 4 + k)) % 2;
      expected.push_back(kD * (1 + 2 * s[v / 8]) * level * (minus == 1 ? -1 : 1));
    }
  }
  for (size_t pair = 0; pair < 32; ++pair) block.Put(74 + pair, 0, 8, signs[pair]);
  for (size_t g = 0; g < 8; ++g) block.Put(106 + g / 2, static_cast<int>(g % 2 * 4), 4, s[g]);
  ExpectValues(block, expected);
}

// A codebook is a set of vectors in ascending order; a sum over all of it notices any change.
template <size_t kSize>
uint64_t SumOf(const uint16_t (&codebook)[kSize]) {
  uint64_t sum = 14695981039346656037u;  // FNV-1a, by entries
  for (size_t i = 0; i < kSize; ++i) {
    if (i > 0) {
      EXPECT_LT(codebook[i - 1], codebook[i]);
    }
    sum = (sum ^ codebook[i]) * 1099511628211u;
  }
  return sum;
}

TEST(GgufDecodeTest, CodebooksAreUnchanged) {
  EXPECT_EQ(SumOf(gguf::kCodebookIQ2_XXS), 4979926770684335262u);
  EXPECT_EQ(SumOf(gguf::kCodebookIQ2_XS), 5013482798831248078u);
  EXPECT_EQ(SumOf(gguf::kCodebookIQ2_S), 15640971235053698666u);
  EXPECT_EQ(SumOf(gguf::kCodebookIQ3_XXS), 3097711019055790313u);
  EXPECT_EQ(SumOf(gguf::kCodebookIQ3_S), 14506658267384718484u);
  for (const uint16_t vector : gguf::kCodebookIQ2_S) {
    for (size_t k = 0; k < 8; ++k) EXPECT_LT(LevelOf8(vector, k), 3u);
  }
}

// Blocks worked by hand: the bytes are written out, the values are counted on paper.
TEST(GgufDecodeTest, ValuesOnPaper) {
  const auto decode = [](GgmlType type, std::vector<int> bytes, size_t blocks = 1) {
    std::vector<std::byte> block;
    for (const int byte : bytes) block.push_back(static_cast<std::byte>(byte));
    block.resize(blocks * FactsOf(type).block_bytes);
    std::vector<float> values(blocks * FactsOf(type).block_cols);
    DecodeRow(type, block, values);
    return values;
  };
  // d = 1 is 0x3C00, 2 is 0x4000, -0.5 is 0xB800.
  std::vector<float> values = decode(GgmlType::kQ4_0, {0x00, 0x40, 0xF0, 0x1A});
  EXPECT_EQ(values[0], -16.0f);   // 2 (0 - 8)
  EXPECT_EQ(values[16], 14.0f);   // 2 (15 - 8)
  EXPECT_EQ(values[1], 4.0f);     // 2 (10 - 8)
  EXPECT_EQ(values[17], -14.0f);  // 2 (1 - 8)
  values = decode(GgmlType::kQ4_1, {0x00, 0x3C, 0x00, 0xB8, 0x73});
  EXPECT_EQ(values[0], 2.5f);   // 3 - 0.5
  EXPECT_EQ(values[16], 6.5f);  // 7 - 0.5
  EXPECT_EQ(values[31], -0.5f);
  values = decode(GgmlType::kQ5_0, {0x00, 0x3C, 0x01, 0x00, 0x02, 0x80, 0x21});
  EXPECT_EQ(values[0], 1.0f);     // 16 + 1 - 16
  EXPECT_EQ(values[16], -14.0f);  // 2 - 16
  EXPECT_EQ(values[17], 0.0f);    // bit 17: 16 - 16
  EXPECT_EQ(values[31], 0.0f);    // bit 31
  EXPECT_EQ(values[30], -16.0f);
  values = decode(GgmlType::kQ8_0, {0x00, 0xB8, 0x80, 0x7F});
  EXPECT_EQ(values[0], 64.0f);  // -0.5 * -128
  EXPECT_EQ(values[1], -63.5f);
  values =
      decode(GgmlType::kQ4_K, {0x00, 0x3C, 0x00, 0x40, 0xC5, 0, 0, 0, 0x43, 0, 0, 0, 0x21, 0, 0, 0, 0xB7});
  EXPECT_EQ(values[0], 29.0f);     // s 5, m 3: 5 * 7 - 2 * 3
  EXPECT_EQ(values[32], 0.0f);     // s 0, m 0
  EXPECT_EQ(values[1], -6.0f);     // 5 * 0 - 2 * 3
  EXPECT_EQ(values[128], -36.0f);  // group 4: m = 2 | 1 << 4 = 18
  // A second block follows at once.
  values = decode(GgmlType::kIQ4_NL,
                  {0x00, 0x3C, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0xB8, 0x0F}, 2);
  EXPECT_EQ(values[0], -127.0f);
  EXPECT_EQ(values[16], 1.0f);
  EXPECT_EQ(values[32], -56.5f);
  EXPECT_EQ(values[48], 63.5f);
}

TEST(GgufDecodeTest, ReadsBytesThatAreNotAligned) {
  std::vector<std::byte> bytes(1 + 210, std::byte{0x2A});
  std::vector<float> values(256), aligned(256);
  DecodeRow(GgmlType::kQ6_K, std::span(bytes).last(210), values);
  DecodeRow(GgmlType::kQ6_K, std::vector<std::byte>(210, std::byte{0x2A}), aligned);
  EXPECT_EQ(values, aligned);
}

TEST(GgufDecodeTest, FactsAreThoseOfTheFormat) {
  EXPECT_EQ(FindGgmlType(4), nullptr);
  EXPECT_EQ(FindGgmlType(1000), nullptr);
  EXPECT_EQ(FindGgmlType(12)->name, std::string("Q4_K"));
  uint32_t previous = 0;
  for (const GgmlTypeFacts& facts : GgmlTypes()) {
    EXPECT_GE(static_cast<uint32_t>(facts.type), previous);
    previous = static_cast<uint32_t>(facts.type);
    EXPECT_EQ(&FactsOf(facts.type), &facts);
  }
  // Bits a value, as the types are known by.
  const auto bits = [](GgmlType type) {
    return 8.0 * static_cast<double>(FactsOf(type).block_bytes) /
           static_cast<double>(FactsOf(type).block_cols);
  };
  EXPECT_EQ(bits(GgmlType::kQ2_K), 2.625);
  EXPECT_EQ(bits(GgmlType::kQ3_K), 3.4375);
  EXPECT_EQ(bits(GgmlType::kQ4_K), 4.5);
  EXPECT_EQ(bits(GgmlType::kQ6_K), 6.5625);
  EXPECT_EQ(bits(GgmlType::kIQ4_XS), 4.25);
  EXPECT_EQ(bits(GgmlType::kIQ2_XXS), 2.0625);
  EXPECT_FALSE(CanDecode(GgmlType::kI32));
  EXPECT_FALSE(CanDecode(GgmlType::kIQ1_S));
}

}  // namespace
}  // namespace mica
