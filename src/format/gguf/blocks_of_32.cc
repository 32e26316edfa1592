// Blocks of 32 values with one FP16 scale d, and for the types _1 an offset m:
//
//   Q4_0  d qs[16]        d (q - 8)         Q4_1  d m qs[16]        d q + m
//   Q5_0  d qh qs[16]     d (q - 16)        Q5_1  d m qh qs[16]     d q + m
//   Q8_0  d qs[32]        d q, q signed
//
// Byte j of qs holds the low four bits of value j in its low half, those of value j + 16 in its high half;
// bit i of qh is the fifth bit of value i.
#include "format/gguf/blocks.h"

namespace mica::gguf {
namespace {

constexpr int kHalf = 16;
constexpr float kNoOffset = -0.0f;  // changes nothing, not even the sign of a zero

struct Q4_0 {
  F16 d;
  uint8_t qs[kHalf];
};
static_assert(sizeof(Q4_0) == 18);

struct Q4_1 {
  F16 d, m;
  uint8_t qs[kHalf];
};
static_assert(sizeof(Q4_1) == 20);

struct Q5_0 {
  F16 d;
  uint8_t qh[4];
  uint8_t qs[kHalf];
};
static_assert(sizeof(Q5_0) == 22);

struct Q5_1 {
  F16 d, m;
  uint8_t qh[4];
  uint8_t qs[kHalf];
};
static_assert(sizeof(Q5_1) == 24);

struct Q8_0 {
  F16 d;
  int8_t qs[2 * kHalf];
};
static_assert(sizeof(Q8_0) == 34);

// values[i] = d (q_i - zero) + m, with the fifth bits from qh unless it is null.
void Decode(const uint8_t* qs, const uint8_t* qh, float d, int zero, float m, float* values) {
  uint32_t fifth = 0;
  if (qh != nullptr) std::memcpy(&fifth, qh, sizeof(fifth));
  for (int j = 0; j < kHalf; ++j) {
    const uint32_t low = (qs[j] & 0xFu) | ((fifth >> j) & 1u) << 4;
    const uint32_t high = (qs[j] >> 4u) | ((fifth >> (j + kHalf)) & 1u) << 4;
    values[j] = d * static_cast<float>(static_cast<int>(low) - zero) + m;
    values[j + kHalf] = d * static_cast<float>(static_cast<int>(high) - zero) + m;
  }
}

}  // namespace

void DecodeQ4_0(const std::byte* block, float* values) {
  const Q4_0 b = Load<Q4_0>(block);
  Decode(b.qs, nullptr, ToFloat(b.d), 8, kNoOffset, values);
}

void DecodeQ4_1(const std::byte* block, float* values) {
  const Q4_1 b = Load<Q4_1>(block);
  Decode(b.qs, nullptr, ToFloat(b.d), 0, ToFloat(b.m), values);
}

void DecodeQ5_0(const std::byte* block, float* values) {
  const Q5_0 b = Load<Q5_0>(block);
  Decode(b.qs, b.qh, ToFloat(b.d), 16, kNoOffset, values);
}

void DecodeQ5_1(const std::byte* block, float* values) {
  const Q5_1 b = Load<Q5_1>(block);
  Decode(b.qs, b.qh, ToFloat(b.d), 0, ToFloat(b.m), values);
}

void DecodeQ8_0(const std::byte* block, float* values) {
  const Q8_0 b = Load<Q8_0>(block);
  for (int i = 0; i < 2 * kHalf; ++i) values[i] = ToFloat(b.d) * static_cast<float>(b.qs[i]);
}

}  // namespace mica::gguf
