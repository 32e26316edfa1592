// Blocks of 256 values in vectors whose magnitudes stand in a codebook (codebooks.h), with signs beside them.
// Scales are codes s of four bits, odd multiples of the block's d:
//
//   IQ2_XXS  d qs[8][8]                     d (2s + 1) / 8 * level of {8, 25, 43}
//   IQ2_XS   d qs[32] s[8]                  the same
//   IQ2_S    d qs[32] signs[32] qh[8] s[8]  the same
//   IQ3_XXS  d qs[64] words[8]              d (2s + 1) / 4 * level of {4, 12, 20, 28, 36, 44, 52, 62}
//   IQ3_S    d qs[64] qh[8] signs[32] s[4]  d (2s + 1) * level of {1, 3, ... 15}
//
// IQ2_XXS has in each 8 bytes the numbers of four vectors of eight, then a word: seven sign bits a vector, s
// of the 32 values in its top four bits. IQ3_XXS has such a word for each eight vectors of four. IQ2_XS has a
// vector of eight in 16 bits: nine of its number, seven of signs. In IQ2_S and IQ3_S the numbers go on in qh,
// with two bits and one bit a vector, and all eight signs are stored. s belongs to 16 values in IQ2_XS and
// IQ2_S, to 32 in IQ3_S. Of eight signs that are stored in seven bits, the last makes the number of minuses
// even.
#include <bit>

#include "format/gguf/blocks.h"
#include "format/gguf/codebooks.h"

namespace mica::gguf {
namespace {

constexpr int kCols = 256;
constexpr float kLevelsIQ2[4] = {8, 25, 43, 0};  // the last is not in the codebooks
constexpr float kLevelsIQ3_XXS[8] = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr float kLevelsIQ3_S[8] = {1, 3, 5, 7, 9, 11, 13, 15};

struct IQ2_XXS {
  F16 d;
  uint8_t qs[8][8];
};
static_assert(sizeof(IQ2_XXS) == 66);

struct IQ2_XS {
  F16 d;
  uint16_t qs[32];
  uint8_t s[8];
};
static_assert(sizeof(IQ2_XS) == 74);

struct IQ2_S {
  F16 d;
  uint8_t qs[32];
  uint8_t signs[32];
  uint8_t qh[8];
  uint8_t s[8];
};
static_assert(sizeof(IQ2_S) == 82);

struct IQ3_XXS {
  F16 d;
  uint8_t qs[64];
  uint8_t words[8][4];
};
static_assert(sizeof(IQ3_XXS) == 98);

struct IQ3_S {
  F16 d;
  uint8_t qs[64];
  uint8_t qh[8];
  uint8_t signs[32];
  uint8_t s[4];
};
static_assert(sizeof(IQ3_S) == 110);

uint32_t Word(const uint8_t* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

uint32_t Nibble(const uint8_t* bytes, int i) { return (bytes[i / 2] >> (i % 2 * 4)) & 15u; }

float OddMultiple(float d, uint32_t s) { return d * static_cast<float>(2 * s + 1); }

// Eight signs from the seven bits that are stored, and from those of vector or pair v of four in a word.
uint32_t EvenSigns(uint32_t seven) { return seven | (static_cast<uint32_t>(std::popcount(seven)) & 1u) << 7; }
uint32_t SignsOf(uint32_t word, int v) { return EvenSigns((word >> (7 * v)) & 127u); }

// values[k] = scale * level k of the vector, with kBits bits a level; bit k of `signs` makes it negative.
template <int kCount, int kBits>
void Decode(uint32_t vector, const float* levels, float scale, uint32_t signs, float* values) {
  for (int k = 0; k < kCount; ++k) {
    const float magnitude = scale * levels[(vector >> (kBits * k)) & ((1u << kBits) - 1)];
    values[k] = (signs >> k) & 1u ? -magnitude : magnitude;
  }
}

}  // namespace

void DecodeIQ2_XXS(const std::byte* block, float* values) {
  const IQ2_XXS b = Load<IQ2_XXS>(block);
  for (int v = 0; v < kCols / 8; ++v) {
    const uint8_t* group = b.qs[v / 4];
    const uint32_t word = Word(group + 4);
    Decode<8, 2>(kCodebookIQ2_XXS[group[v % 4]], kLevelsIQ2, OddMultiple(ToFloat(b.d), word >> 28) / 8,
                 SignsOf(word, v % 4), values + 8 * v);
  }
}

void DecodeIQ2_XS(const std::byte* block, float* values) {
  const IQ2_XS b = Load<IQ2_XS>(block);
  for (int v = 0; v < kCols / 8; ++v) {
    const uint32_t number = b.qs[v] & 511u, seven = static_cast<uint32_t>(b.qs[v]) >> 9;
    Decode<8, 2>(kCodebookIQ2_XS[number], kLevelsIQ2, OddMultiple(ToFloat(b.d), Nibble(b.s, v / 2)) / 8,
                 EvenSigns(seven), values + 8 * v);
  }
}

void DecodeIQ2_S(const std::byte* block, float* values) {
  const IQ2_S b = Load<IQ2_S>(block);
  for (int v = 0; v < kCols / 8; ++v) {
    const uint32_t number = b.qs[v] | ((b.qh[v / 4] >> (v % 4 * 2)) & 3u) << 8;
    Decode<8, 2>(kCodebookIQ2_S[number], kLevelsIQ2, OddMultiple(ToFloat(b.d), Nibble(b.s, v / 2)) / 8,
                 b.signs[v], values + 8 * v);
  }
}

void DecodeIQ3_XXS(const std::byte* block, float* values) {
  const IQ3_XXS b = Load<IQ3_XXS>(block);
  for (int v = 0; v < kCols / 4; ++v) {
    const uint32_t word = Word(b.words[v / 8]);
    Decode<4, 3>(kCodebookIQ3_XXS[b.qs[v]], kLevelsIQ3_XXS, OddMultiple(ToFloat(b.d), word >> 28) / 4,
                 SignsOf(word, v % 8 / 2) >> (v % 2 * 4), values + 4 * v);
  }
}

void DecodeIQ3_S(const std::byte* block, float* values) {
  const IQ3_S b = Load<IQ3_S>(block);
  for (int v = 0; v < kCols / 4; ++v) {
    const uint32_t number = b.qs[v] | ((b.qh[v / 8] >> (v % 8)) & 1u) << 8;
    Decode<4, 3>(kCodebookIQ3_S[number], kLevelsIQ3_S, OddMultiple(ToFloat(b.d), Nibble(b.s, v / 8)),
                 static_cast<uint32_t>(b.signs[v / 2]) >> (v % 2 * 4), values + 4 * v);
  }
}

}  // namespace mica::gguf
