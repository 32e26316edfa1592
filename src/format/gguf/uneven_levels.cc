// Codes of four bits that name one of 16 uneven levels, none of them zero:
//
//   IQ4_NL  d qs[16]             32 values: d T[q]
//   IQ4_XS  d sh sl[4] qs[128]   256 values in 8 groups of 32: d (s - 32) T[q]; s has its low four bits in sl
//                                (two a byte), its top two in sh
//
// In every 32 values, byte j of qs holds value j in its low half, value j + 16 in its high half.
#include "format/gguf/blocks.h"

namespace mica::gguf {
namespace {

constexpr float kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

struct IQ4_NL {
  F16 d;
  uint8_t qs[16];
};
static_assert(sizeof(IQ4_NL) == 18);

struct IQ4_XS {
  F16 d;
  uint8_t sh[2];
  uint8_t sl[4];
  uint8_t qs[128];
};
static_assert(sizeof(IQ4_XS) == 136);

void Decode32(const uint8_t* qs, float scale, float* values) {
  for (int j = 0; j < 16; ++j) {
    values[j] = scale * kLevels[qs[j] & 15u];
    values[j + 16] = scale * kLevels[qs[j] >> 4u];
  }
}

}  // namespace

void DecodeIQ4_NL(const std::byte* block, float* values) {
  const IQ4_NL b = Load<IQ4_NL>(block);
  Decode32(b.qs, ToFloat(b.d), values);
}

void DecodeIQ4_XS(const std::byte* block, float* values) {
  const IQ4_XS b = Load<IQ4_XS>(block);
  for (int g = 0; g < 8; ++g) {
    const uint32_t low = (b.sl[g / 2] >> (g % 2 * 4)) & 15u;
    const uint32_t high = (b.sh[g / 4] >> (g % 4 * 2)) & 3u;
    const float scale = ToFloat(b.d) * static_cast<float>(static_cast<int>(low | high << 4) - 32);
    Decode32(b.qs + g * 16, scale, values + g * 32);
  }
}

}  // namespace mica::gguf
