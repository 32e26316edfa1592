// The layouts are described where they are read: blocks_of_32.cc, super_blocks.cc, uneven_levels.cc and
// vectors.cc.
#include "format/gguf/encode.h"

#include <cstring>

#include "base/error.h"
#include "format/blocks/block_grid.h"

namespace mica {
namespace {

// The part of a row that belongs to one block, and the bytes of the block.
struct Block {
  const uint8_t* codes;
  const uint16_t* vectors;
  const uint8_t *signs, *s, *m;
  F16 d, dmin;
  uint8_t* bytes;

  void Put16(size_t at, uint16_t value) const {
    bytes[at] = static_cast<uint8_t>(value & 0xFFu);
    bytes[at + 1] = static_cast<uint8_t>(value >> 8);
  }
  void Put32(size_t at, uint32_t value) const {
    Put16(at, static_cast<uint16_t>(value & 0xFFFFu));
    Put16(at + 2, static_cast<uint16_t>(value >> 16));
  }
  // Bits are added to bytes that start as zero.
  void Add(size_t at, uint32_t value, int shift) const {
    bytes[at] = static_cast<uint8_t>(bytes[at] | value << shift);
  }

  // The low four bits of 32 codes from `first` on: byte j has those of j and, above, of j + 16.
  void PutHalves(size_t at, size_t first) const {
    for (size_t j = 0; j < 16; ++j) {
      bytes[at + j] = static_cast<uint8_t>((codes[first + j] & 15u) | (codes[first + j + 16] & 15u) << 4);
    }
  }
  // Two bits of 256 values: in each half of 128, byte l of 32 has those of l, l + 32, l + 64 and l + 96.
  void AddTwoBits(size_t at, size_t i, uint32_t bits) const {
    Add(at + i / 128 * 32 + i % 32, bits, static_cast<int>(i % 128 / 32 * 2));
  }
  // Bit i / 32 of byte i % 32.
  void AddOneBit(size_t at, size_t i, uint32_t bit) const { Add(at + i % 32, bit, static_cast<int>(i / 32)); }
  // Four bits: in each 64 values, byte l of 32 has those of l and, above, of l + 32.
  void AddFourBits(size_t at, size_t i, uint32_t bits) const {
    Add(at + i / 64 * 32 + i % 32, bits, static_cast<int>(i % 64 / 32 * 4));
  }
};

constexpr size_t kCols = 256;

// Blocks of 32: d, m where `offset`, the fifth bits where `fifth`, then the low four.
void Put32Columns(const Block& b, bool offset, bool fifth) {
  size_t at = 2;
  b.Put16(0, b.d.bits);
  if (offset) {
    b.Put16(at, b.dmin.bits ^ 0x8000u);  // what is added
    at += 2;
  }
  if (fifth) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(b.codes[i] >> 4) << i;
    b.Put32(at, bits);
    at += 4;
  }
  b.PutHalves(at, 0);
}

void PutQ8_0(const Block& b) {
  b.Put16(0, b.d.bits);
  for (size_t i = 0; i < 32; ++i) b.bytes[2 + i] = static_cast<uint8_t>(b.codes[i] - 127);
}

void PutQ2_K(const Block& b) {
  for (size_t g = 0; g < 16; ++g) b.bytes[g] = static_cast<uint8_t>(b.s[g] | b.m[g] << 4);
  for (size_t i = 0; i < kCols; ++i) b.AddTwoBits(16, i, b.codes[i]);
  b.Put16(80, b.d.bits);
  b.Put16(82, b.dmin.bits);
}

void PutQ3_K(const Block& b) {
  for (size_t i = 0; i < kCols; ++i) {
    b.AddOneBit(0, i, b.codes[i] >> 2);
    b.AddTwoBits(32, i, b.codes[i] & 3u);
  }
  for (size_t g = 0; g < 16; ++g) {
    b.Add(96 + g % 8, b.s[g] & 15u, static_cast<int>(g / 8 * 4));
    b.Add(104 + g % 4, b.s[g] >> 4, static_cast<int>(g / 4 * 2));
  }
  b.Put16(108, b.d.bits);
}

void PutQ4_KOrQ5_K(const Block& b, bool fifth) {
  b.Put16(0, b.d.bits);
  b.Put16(2, b.dmin.bits);
  for (size_t g = 0; g < 8; ++g) {
    const uint32_t s = b.s[g], m = b.m[g];
    if (g < 4) {
      b.Add(4 + g, s, 0);
      b.Add(8 + g, m, 0);
    } else {
      b.Add(8 + g, (s & 15u) | (m & 15u) << 4, 0);
      b.Add(g, s >> 4, 6);
      b.Add(4 + g, m >> 4, 6);
    }
  }
  for (size_t i = 0; i < kCols; ++i) {
    if (fifth) b.AddOneBit(16, i, b.codes[i] >> 4);
    b.AddFourBits(fifth ? 48 : 16, i, b.codes[i] & 15u);
  }
}

void PutQ6_K(const Block& b) {
  for (size_t i = 0; i < kCols; ++i) {
    b.Add(i / 128 * 64 + i % 64, b.codes[i] & 15u, static_cast<int>(i % 128 / 64 * 4));
    b.AddTwoBits(128, i, b.codes[i] >> 4);
  }
  for (size_t g = 0; g < 16; ++g) b.bytes[192 + g] = static_cast<uint8_t>(b.s[g] - 128);
  b.Put16(208, b.d.bits);
}

void PutIQ4_XS(const Block& b) {
  b.Put16(0, b.d.bits);
  for (size_t g = 0; g < 8; ++g) {
    b.Add(2 + g / 4, b.s[g] >> 4, static_cast<int>(g % 4 * 2));
    b.Add(4 + g / 2, b.s[g] & 15u, static_cast<int>(g % 2 * 4));
    b.PutHalves(8 + 16 * g, 32 * g);
  }
}

// Seven of the eight signs of each of four runs of columns, and s of them in the top bits.
uint32_t SignsAndScale(const uint8_t* signs, uint8_t s) {
  uint32_t word = static_cast<uint32_t>(s) << 28;
  for (int v = 0; v < 4; ++v) word |= (signs[v] & 127u) << (7 * v);
  return word;
}

void PutIQ2_XXS(const Block& b) {
  b.Put16(0, b.d.bits);
  for (size_t g = 0; g < 8; ++g) {
    for (size_t v = 0; v < 4; ++v) b.bytes[2 + 8 * g + v] = static_cast<uint8_t>(b.vectors[4 * g + v]);
    b.Put32(2 + 8 * g + 4, SignsAndScale(b.signs + 4 * g, b.s[g]));
  }
}

void PutIQ2_XS(const Block& b) {
  b.Put16(0, b.d.bits);
  for (size_t v = 0; v < 32; ++v)
    b.Put16(2 + 2 * v, static_cast<uint16_t>(b.vectors[v] | (b.signs[v] & 127u) << 9));
  for (size_t g = 0; g < 16; ++g) b.Add(66 + g / 2, b.s[g], static_cast<int>(g % 2 * 4));
}

void PutIQ2_S(const Block& b) {
  b.Put16(0, b.d.bits);
  for (size_t v = 0; v < 32; ++v) {
    b.bytes[2 + v] = static_cast<uint8_t>(b.vectors[v] & 0xFFu);
    b.bytes[34 + v] = b.signs[v];
    b.Add(66 + v / 4, b.vectors[v] >> 8, static_cast<int>(v % 4 * 2));
  }
  for (size_t g = 0; g < 16; ++g) b.Add(74 + g / 2, b.s[g], static_cast<int>(g % 2 * 4));
}

void PutIQ3_XXS(const Block& b) {
  b.Put16(0, b.d.bits);
  for (size_t v = 0; v < 64; ++v) b.bytes[2 + v] = static_cast<uint8_t>(b.vectors[v]);
  for (size_t g = 0; g < 8; ++g) b.Put32(66 + 4 * g, SignsAndScale(b.signs + 4 * g, b.s[g]));
}

void PutIQ3_S(const Block& b) {
  b.Put16(0, b.d.bits);
  for (size_t v = 0; v < 64; ++v) {
    b.bytes[2 + v] = static_cast<uint8_t>(b.vectors[v] & 0xFFu);
    b.Add(66 + v / 8, b.vectors[v] >> 8, static_cast<int>(v % 8));
  }
  std::memcpy(b.bytes + 74, b.signs, 32);
  for (size_t g = 0; g < 8; ++g) b.Add(106 + g / 2, b.s[g], static_cast<int>(g % 2 * 4));
}

void Encode(GgmlType type, const Block& block) {
  using enum GgmlType;
  switch (type) {
    case kQ4_0:
    case kIQ4_NL:
      return Put32Columns(block, false, false);
    case kQ4_1:
      return Put32Columns(block, true, false);
    case kQ5_0:
      return Put32Columns(block, false, true);
    case kQ5_1:
      return Put32Columns(block, true, true);
    case kQ8_0:
      return PutQ8_0(block);
    case kQ2_K:
      return PutQ2_K(block);
    case kQ3_K:
      return PutQ3_K(block);
    case kQ4_K:
      return PutQ4_KOrQ5_K(block, false);
    case kQ5_K:
      return PutQ4_KOrQ5_K(block, true);
    case kQ6_K:
      return PutQ6_K(block);
    case kIQ4_XS:
      return PutIQ4_XS(block);
    case kIQ2_XXS:
      return PutIQ2_XXS(block);
    case kIQ2_XS:
      return PutIQ2_XS(block);
    case kIQ2_S:
      return PutIQ2_S(block);
    case kIQ3_XXS:
      return PutIQ3_XXS(block);
    case kIQ3_S:
      return PutIQ3_S(block);
    default:
      MICA_CHECK(false);
  }
}

}  // namespace

void EncodeRow(GgmlType type, const BlockRow& row, size_t cols, std::span<std::byte> bytes) {
  const GgmlTypeFacts& facts = FactsOf(type);
  const BlockGrid& grid = GridOf(type);
  MICA_CHECK(cols % facts.block_cols == 0);
  MICA_CHECK(bytes.size() == cols / facts.block_cols * facts.block_bytes);
  if (bytes.empty()) return;
  std::memset(bytes.data(), 0, bytes.size());
  const size_t groups = grid.has_integers() ? grid.groups() : 0;
  const size_t offsets = grid.offset_high > 0 ? grid.groups() : 0;
  for (size_t b = 0; b < cols / facts.block_cols; ++b) {
    const size_t column = b * facts.block_cols;
    Block block{};
    if (grid.levels == LevelKind::kCodebook) {
      block.vectors = row.vectors + column / grid.vector_cols;
      block.signs = row.signs + column / 8;
    } else {
      block.codes = row.codes + column;
    }
    if (groups > 0) block.s = row.s + b * groups;
    if (offsets > 0) block.m = row.m + b * offsets;
    block.d = row.d[b];
    if (grid.has_offset()) block.dmin = row.dmin[b];
    block.bytes = reinterpret_cast<uint8_t*>(bytes.data()) + b * facts.block_bytes;
    Encode(type, block);
  }
}

}  // namespace mica
