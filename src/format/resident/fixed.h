// What the bytes of a matrix of coding `fixed` mean that stays in memory on the processor: as many bits as
// are stored, in an order that vectors take apart by shifts.
//
//   tile    64 rows, all columns of a width above 0
//   block   at most 128 consecutive stored columns of one scale group; all rows of a tile:
//             scales  [rows] ScaleCode
//             zeros   [rows]
//             masks   [rows, mask_bytes], with a mask: as docs/format.md has them, for the block's columns
//             codes   of one row after the other: those of the kept weights, in planes
//   planes  of n codes of b bits, by the binary digits of b from the highest down, lowest bits of codes
//   first:
//             8   [n]
//             4   [ceil(n / 2)]: byte i has four bits of code i below, of code i + ceil(n / 2) above
//             2   [ceil(n / 4)]: byte i has, from below, two bits of codes i, i + q, i + 2 q, i + 3 q
//             1   [ceil(n / 8)]: likewise a bit of eight codes
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/fixed/parts.h"
#include "format/mask/mask_kind.h"

namespace mica {

// A tile is what the file counts kept weights by.
inline constexpr size_t kFixedTile = kBlockRows, kFixedBlock = 128;
// Columns are named by 16 bits.
inline constexpr size_t kMostFixedCols = 65536;

constexpr size_t PlaneBytes(int width, size_t n) {
  size_t bytes = width & 8 ? n : 0;
  if (width & 4) bytes += (n + 1) / 2;
  if (width & 2) bytes += (n + 3) / 4;
  if (width & 1) bytes += (n + 7) / 8;
  return bytes;
}
static_assert(PlaneBytes(3, 128) == 48 && PlaneBytes(6, 128) == 96);
// out [PlaneBytes(width, n)] of codes [n], behind which stand seven zeros; n up to kFixedBlock.
void PackPlanes(const uint8_t* codes, size_t n, int width, uint8_t* out);
// codes [n] of them.
void UnpackPlanes(const uint8_t* planes, size_t n, int width, uint8_t* codes);

struct FixedBlock {
  uint32_t start = 0;      // first stored column
  uint32_t scale_row = 0;  // of the scale group
  uint8_t count = 0;       // columns
  uint8_t bits = 0;
  uint8_t mask_bytes = 0;  // a row
};

struct FixedLayout {
  size_t rows = 0, cols = 0;
  // Of the masks of blocks: a bitmap where cells lie in two blocks.
  MaskKind mask;
  std::vector<FixedBlock> blocks;

  bool masked() const { return !(mask == MaskKind::kNone); }
  size_t tiles() const { return (rows + kFixedTile - 1) / kFixedTile; }
  size_t RowsOf(size_t tile) const { return std::min(kFixedTile, rows - tile * kFixedTile); }
};

// Whether a matrix has such a form: not with codes of 16 bits.
bool HasFixedLayout(const FixedParts& parts);
FixedLayout LayoutOf(const FixedParts& parts);

// The bytes of a tile, and where each block begins in them.
struct FixedTile {
  std::vector<uint8_t> bytes;
  std::vector<uint32_t> begin;  // [blocks]
};
FixedTile MakeFixedTile(const FixedParts& parts, const FixedLayout& layout, size_t tile);

// Where the parts of a block are.
struct FixedBlockBytes {
  const uint8_t *scales, *zeros, *masks, *codes;
  FixedBlockBytes(const FixedBlock& block, size_t rows, const uint8_t* begin)
      : scales(begin), zeros(begin + rows), masks(begin + 2 * rows), codes(masks + rows * block.mask_bytes) {}
};

// words[2] bit i: whether column i of the block is kept; returns how many are. May read 16 bytes behind
// `mask`.
size_t ReadBlockMask(const FixedLayout& layout, const FixedBlock& block, const uint8_t* mask,
                     uint64_t* words);

// The integers code - zero of one row of a block, [count], 0 where it is pruned.
void UnpackBlockRow(const FixedLayout& layout, const FixedBlock& block, size_t rows, const uint8_t* begin,
                    size_t row, int16_t* integers);

}  // namespace mica
