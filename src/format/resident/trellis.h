// What the bytes of a matrix of coding `entropy` mean that stays in memory: its integers n in a width that is
// one for the whole matrix, from which levels follow by the machine of states as they are read, and beside
// them, row by row, what that width does not hold.
//
//   tile    tile_rows rows in stored order, all columns; the machine starts at its top
//   block   256 columns of a tile, whose activations share a scale; all of its rows, downward
//   strip   64 columns of a block
//
// A code of `width` bits is n without its lowest bit, and that bit (the parity, which the machine needs) on
// top of it. In width 8 a code is the level plus 128, without states.
//
//   whole block   low bits  [rows, 128] nibbles: byte i of the first 64 has strip 0 below, strip 1 above, the
//                           others strips 2 and 3 (widths 4 to 6)
//                           [rows, 256] (width 8)   none (widths 2 and 3)
//                 two bits  [rows, 64] byte i has those of strips 0, 1, 2, 3 from below: bits 0 and 1 of
//                           codes of widths 2 and 3, bits 4 and 5 of codes of width 6
//                 high bit  [rows, 32] bit v of byte i is that of column 32 v + i: bit 2 of codes of width
//                           3, bit 4 of codes of width 5
//   last block    of 1 to 3 strips: [rows, strips, width, 8], a bit a column
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/entropy/entropy_matrix.h"

namespace mica {

inline constexpr size_t kTrellisBlock = 256, kTrellisStrip = 64;
inline constexpr size_t kStripsOfBlock = kTrellisBlock / kTrellisStrip;
inline constexpr std::array<int, 6> kTrellisWidths = {2, 3, 4, 5, 6, 8};
// Columns and rows are named by 16 bits.
inline constexpr size_t kMostTrellisCols = 65536, kMostTrellisRows = 65536;

struct TrellisLayout {
  size_t rows = 0, cols = 0, tile_rows = 1;
  int states = 1;
  int width = 4;  // of kTrellisWidths

  size_t tiles() const { return CodedTiles(rows, tile_rows); }
  size_t blocks() const { return (cols + kTrellisBlock - 1) / kTrellisBlock; }
  size_t strips() const { return (cols + kTrellisStrip - 1) / kTrellisStrip; }
  size_t RowsOf(size_t tile) const { return std::min(tile_rows, rows - tile * tile_rows); }
  size_t StripsOf(size_t block) const { return std::min(kStripsOfBlock, strips() - block * kStripsOfBlock); }
  // Bytes of one row of a strip.
  size_t strip_bytes() const { return static_cast<size_t>(width) * kTrellisStrip / 8; }
  size_t bytes() const { return rows * strips() * strip_bytes(); }
  // Where a block begins.
  size_t Begin(size_t tile, size_t block) const {
    return (tile * tile_rows * strips() + RowsOf(tile) * block * kStripsOfBlock) * strip_bytes();
  }
};

// Integers that have a code of a width below 8: [-half, half).
constexpr int HalfOfWidth(int width) { return 1 << (width - 1); }
constexpr bool HasCode(int n, int width) { return n >= -HalfOfWidth(width) && n < HalfOfWidth(width); }
// The nearest one of the same parity, so that the machine goes the same way; of width 2 it may have another
// sign.
constexpr int NearestWithCode(int n, int width) {
  const int half = HalfOfWidth(width);
  if (n >= half) return half - 2 + (n & 1);  // half is even
  if (n < -half) return -half + (n & 1);
  return n;
}
constexpr uint8_t CodeOf(int n, int width) {
  return static_cast<uint8_t>(((n >> 1) & (HalfOfWidth(width) - 1)) | (n & 1) << (width - 1));
}
constexpr int IntegerOfCode(int code, int width) {
  const int half = HalfOfWidth(width), upper = code & (half - 1);
  return 2 * (upper >= half / 2 ? upper - half : upper) + (code >> (width - 1) & 1);
}
static_assert(IntegerOfCode(CodeOf(-8, 4), 4) == -8 && IntegerOfCode(CodeOf(7, 4), 4) == 7 &&
              IntegerOfCode(CodeOf(-1, 3), 3) == -1);
// Levels of width 8 lie within +- this.
inline constexpr int kMostByteLevel = 127;

// What a level has beyond the one that its code says, an entry of the list of a row: how many columns it is
// behind the entry before it (the first: behind column 0) in the low bits, the difference in units of the
// matrix above them, signed. A difference that does not fit is the sum of several entries, those behind the
// first in the same column; where the next column is too far, an entry of difference 0 stands between.
using TrellisException = uint16_t;
inline constexpr int kExceptionColBits = 10;
inline constexpr int kMostExceptionCols = (1 << kExceptionColBits) - 1, kMostExceptionUnits = 31;
constexpr int ColsOf(TrellisException exception) { return exception & kMostExceptionCols; }
constexpr int UnitsOf(TrellisException exception) {
  return static_cast<int16_t>(exception) >> kExceptionColBits;
}
// Integers of widths 3 to 6 are moved by an even number, which is doubled where states choose between two
// quantisers.
constexpr int ExceptionUnit(int states, int width) {
  return width == 2 || width == 8 ? 1 : states > 1 ? 4 : 2;
}
// Appends what says that column `col` has `difference` more, a multiple of `unit`; `at`: the column of the
// entry before, which becomes col.
void AddException(size_t col, int difference, int unit, size_t& at, std::vector<TrellisException>& out);

// Bytes of a block from codes [rows of the tile, 256], those of columns beyond the last being 0 (width 8:
// anything); out: as many bytes as the block has.
void PackBlock(const TrellisLayout& layout, size_t tile, size_t block, const uint8_t* codes, uint8_t* out);
// The codes of one row of it, [256]; those of strips that it has not are 0.
void UnpackRow(const TrellisLayout& layout, size_t tile, size_t block, const uint8_t* bytes, size_t row,
               uint8_t* codes);

// How many columns apart the bits of a byte of a plane of high bits are.
inline constexpr size_t kHighBytes = kTrellisBlock / 8;

// The machine as tables of a byte. For widths below 6 a byte is code | state, with
// state = quantiser << width | rest << (width + 1): its six lowest bits say the level, and the four from the
// parity on what the next state is. For width 6 the state is quantiser << 6 | rest's low bit << 7 | its high
// bit << 4, and parity, which is bit 5, stands among them.
struct TrellisTables {
  // Level + offset by the byte's six lowest bits, seven for width 6.
  std::array<uint8_t, 128> level;
  // State by byte >> next_shift, of which four bits count: repeated.
  std::array<uint8_t, 64> next;
  int next_shift = 0;
  int offset = 0;     // 2^width
  uint8_t start = 0;  // state at the top of a tile
};
TrellisTables MakeTrellisTables(int states, int width);

// What the chosen width does not hold, expected of the matrix's tables.
struct TrellisChoice {
  int width = 4;
  std::vector<uint32_t> taken;  // columns that are taken out whole, rising
  double bits = 0;         // a weight, exceptions counted for the time that they take
  double memory_bits = 0;  // a weight, expected: of codes, exceptions and columns taken out
};
// The width that takes the fewest bytes; or what another one takes.
TrellisChoice ChooseTrellis(const EntropyFrame& frame);
TrellisChoice TrellisOfWidth(const EntropyFrame& frame, int width);

}  // namespace mica
