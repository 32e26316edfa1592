// Blocks of 256 values in groups of 16 or 32, whose scales are codes themselves: FP16 d (and dmin) for all.
//
//   Q2_K  sm[16] qs[64] d dmin          16 groups of 16: d s q - dmin m; s = sm & 15, m = sm >> 4
//   Q3_K  hmask[32] qs[64] sc[12] d     16 groups of 16: d (s - 32) (q - 4), s of 6 bits
//   Q4_K  d dmin sm[12] qs[128]         8 groups of 32: d s q - dmin m, s and m of 6 bits
//   Q5_K  d dmin sm[12] qh[32] qs[128]  the same
//   Q6_K  ql[128] qh[64] s[16] d        16 groups of 16: d s (q - 32), s signed
#include "format/gguf/blocks.h"

namespace mica::gguf {
namespace {

constexpr int kCols = 256;

struct Q2_K {
  uint8_t sm[16];
  uint8_t qs[kCols / 4];
  F16 d, dmin;
};
static_assert(sizeof(Q2_K) == 84);

struct Q3_K {
  uint8_t hmask[kCols / 8];
  uint8_t qs[kCols / 4];
  uint8_t sc[12];
  F16 d;
};
static_assert(sizeof(Q3_K) == 110);

struct Q4_K {
  F16 d, dmin;
  uint8_t sm[12];
  uint8_t qs[kCols / 2];
};
static_assert(sizeof(Q4_K) == 144);

struct Q5_K {
  F16 d, dmin;
  uint8_t sm[12];
  uint8_t qh[kCols / 8];
  uint8_t qs[kCols / 2];
};
static_assert(sizeof(Q5_K) == 176);

struct Q6_K {
  uint8_t ql[kCols / 2];
  uint8_t qh[kCols / 4];
  int8_t s[16];
  F16 d;
};
static_assert(sizeof(Q6_K) == 210);

// Two bits of value i: in each half of 128 values, byte l of 32 holds those of l, l + 32, l + 64 and l + 96,
// lowest bits first.
uint32_t TwoBits(const uint8_t* bytes, int i) {
  return (bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2)) & 3u;
}

// Four bits of value i: in each 64 values, byte l of 32 holds those of l in its low half, of l + 32 in its
// high half.
uint32_t FourBits(const uint8_t* bytes, int i) {
  return (bytes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4)) & 15u;
}

// Bit i / 32 of byte i % 32.
uint32_t OneBit(const uint8_t* bytes, int i) { return (bytes[i % 32] >> (i / 32)) & 1u; }

struct ScaleAndOffset {
  uint32_t s, m;
};

// Those of group j of 8. The first four stand in the low six bits of bytes j and j + 4; of the others the low
// four bits stand in byte j + 4, the top two bits in the top of the bytes of the first.
ScaleAndOffset SixBits(const uint8_t* sm, int j) {
  const uint32_t a = sm[j], b = sm[j + 4];
  if (j < 4) return {a & 63u, b & 63u};
  const uint32_t first = sm[j - 4];
  return {(b & 15u) | first >> 6 << 4, b >> 4 | a >> 6 << 4};
}

// Scale j of 16 of Q3_K: the low four bits of 0 to 7 stand in the low halves of eight bytes, those of 8 to 15
// in the high halves; the top two bits in four bytes more, of j, j + 4, j + 8 and j + 12 in each.
int ScaleQ3_K(const uint8_t* sc, int j) {
  const uint32_t low = (sc[j % 8] >> (j / 8 * 4)) & 15u;
  const uint32_t high = (sc[8 + j % 4] >> (j / 4 * 2)) & 3u;
  return static_cast<int>(low | high << 4) - 32;
}

}  // namespace

void DecodeQ2_K(const std::byte* block, float* values) {
  const Q2_K b = Load<Q2_K>(block);
  const float d = ToFloat(b.d), dmin = ToFloat(b.dmin);
  for (int i = 0; i < kCols; ++i) {
    const float scale = d * static_cast<float>(b.sm[i / 16] & 15u);
    const float offset = dmin * static_cast<float>(b.sm[i / 16] >> 4u);
    values[i] = scale * static_cast<float>(TwoBits(b.qs, i)) - offset;
  }
}

void DecodeQ3_K(const std::byte* block, float* values) {
  const Q3_K b = Load<Q3_K>(block);
  const float d = ToFloat(b.d);
  for (int i = 0; i < kCols; ++i) {
    const float scale = d * static_cast<float>(ScaleQ3_K(b.sc, i / 16));
    const int q = static_cast<int>(TwoBits(b.qs, i) | OneBit(b.hmask, i) << 2) - 4;
    values[i] = scale * static_cast<float>(q);
  }
}

void DecodeQ4_K(const std::byte* block, float* values) {
  const Q4_K b = Load<Q4_K>(block);
  const float d = ToFloat(b.d), dmin = ToFloat(b.dmin);
  for (int i = 0; i < kCols; ++i) {
    const ScaleAndOffset group = SixBits(b.sm, i / 32);
    values[i] = d * static_cast<float>(group.s) * static_cast<float>(FourBits(b.qs, i)) -
                dmin * static_cast<float>(group.m);
  }
}

void DecodeQ5_K(const std::byte* block, float* values) {
  const Q5_K b = Load<Q5_K>(block);
  const float d = ToFloat(b.d), dmin = ToFloat(b.dmin);
  for (int i = 0; i < kCols; ++i) {
    const ScaleAndOffset group = SixBits(b.sm, i / 32);
    const uint32_t q = FourBits(b.qs, i) | OneBit(b.qh, i) << 4;
    values[i] = d * static_cast<float>(group.s) * static_cast<float>(q) - dmin * static_cast<float>(group.m);
  }
}

void DecodeQ6_K(const std::byte* block, float* values) {
  const Q6_K b = Load<Q6_K>(block);
  const float d = ToFloat(b.d);
  for (int i = 0; i < kCols; ++i) {
    // In each half of 128 values, byte l of 64 holds the low bits of l and l + 64.
    const uint32_t low = (b.ql[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4)) & 15u;
    const int q = static_cast<int>(low | TwoBits(b.qh, i) << 4) - 32;
    values[i] = d * static_cast<float>(b.s[i / 16]) * static_cast<float>(q);
  }
}

}  // namespace mica::gguf
