#include "format/resident/fixed.h"

#include <bit>
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "format/fixed/row_cursor.h"
#include "format/mask/mask_rows.h"

namespace mica {
namespace {

// kPart bits of each of n codes, from bit `at` on, 8 / kPart of them a byte; returns what follows them in
// out.
template <int kPart>
uint8_t* PackPart(const uint8_t* codes, size_t n, int at, uint8_t* out) {
  constexpr size_t kPerByte = 8 / kPart;
  constexpr int kMask = (1 << kPart) - 1;
  const size_t bytes = (n + kPerByte - 1) / kPerByte;
  for (size_t i = 0; i < bytes; ++i) {
    int byte = 0;
    for (size_t j = 0; j < kPerByte; ++j)
      byte |= (codes[j * bytes + i] >> at & kMask) << (static_cast<int>(j) * kPart);
    out[i] = static_cast<uint8_t>(byte);
  }
  return out + bytes;
}

template <int kPart>
const uint8_t* UnpackPart(const uint8_t* plane, size_t n, int at, uint8_t* codes) {
  constexpr size_t kPerByte = 8 / kPart;
  const size_t bytes = (n + kPerByte - 1) / kPerByte;
  for (size_t i = 0; i < n; ++i) {
    const int part = plane[i % bytes] >> (static_cast<int>(i / bytes) * kPart) & ((1 << kPart) - 1);
    codes[i] = static_cast<uint8_t>(codes[i] | part << at);
  }
  return plane + bytes;
}

// Bits [first, first + count) of a stream, from bit 0 of out on, then zero bits to a whole byte.
void CopyBits(std::span<const std::byte> from, uint64_t first, size_t count, uint8_t* out) {
  const std::byte* end = from.data() + from.size();
  for (size_t done = 0; done < count; done += 32) {
    const uint64_t bit = first + done;
    const size_t bits = std::min<size_t>(32, count - done);
    const uint64_t word = (LoadWord(from.data() + bit / 8, end) >> (bit % 8)) & ((uint64_t{1} << bits) - 1);
    std::memcpy(out + done / 8, &word, (bits + 7) / 8);
  }
}

}  // namespace

void PackPlanes(const uint8_t* codes, size_t n, int width, uint8_t* out) {
  if (width == 8) {
    std::memcpy(out, codes, n);
    return;
  }
  int at = 0;
  if (width & 4) out = PackPart<4>(codes, n, at, out), at += 4;
  if (width & 2) out = PackPart<2>(codes, n, at, out), at += 2;
  if (width & 1) PackPart<1>(codes, n, at, out);
}

void UnpackPlanes(const uint8_t* planes, size_t n, int width, uint8_t* codes) {
  if (width == 8) {
    std::copy_n(planes, n, codes);
    return;
  }
  std::fill_n(codes, n, uint8_t{0});
  int at = 0;
  if (width & 4) planes = UnpackPart<4>(planes, n, at, codes), at += 4;
  if (width & 2) planes = UnpackPart<2>(planes, n, at, codes), at += 2;
  if (width & 1) UnpackPart<1>(planes, n, at, codes);
}

bool HasFixedLayout(const FixedParts& parts) {
  return parts.cols <= kMostFixedCols &&
         std::ranges::none_of(parts.groups, [](const FixedGroup& group) { return group.bits == 16; });
}

FixedLayout LayoutOf(const FixedParts& parts) {
  MICA_CHECK(HasFixedLayout(parts));
  FixedLayout layout{parts.rows, parts.cols, parts.mask, {}};
  bool whole_cells = true;
  for (const FixedGroup& group : parts.groups) {
    if (group.bits == 0) continue;
    for (uint32_t first = 0; first < group.count; first += kFixedBlock) {
      FixedBlock block;
      block.start = group.start + first;
      block.scale_row = static_cast<uint32_t>(group.scale_row);
      block.count = static_cast<uint8_t>(std::min<uint32_t>(kFixedBlock, group.count - first));
      block.bits = group.bits;
      whole_cells = whole_cells && (group.coded_start + first) % parts.mask.CellCols() == 0;
      layout.blocks.push_back(block);
    }
  }
  if (!whole_cells) layout.mask = MaskKind::kBitmap;
  for (FixedBlock& block : layout.blocks)
    block.mask_bytes = static_cast<uint8_t>(layout.mask.RowBytes(block.count));
  return layout;
}

FixedTile MakeFixedTile(const FixedParts& parts, const FixedLayout& layout, size_t tile) {
  const size_t rows = layout.RowsOf(tile), blocks = layout.blocks.size();
  // What stands in front of the codes, and the codes.
  std::vector<std::vector<uint8_t>> heads(blocks), codes(blocks);
  for (size_t k = 0; k < blocks; ++k) {
    const FixedBlock& block = layout.blocks[k];
    heads[k].resize(rows * (size_t{2} + block.mask_bytes));
    codes[k].resize(rows * PlaneBytes(block.bits, block.count));
  }
  std::vector<size_t> at(blocks, 0);  // in codes
  RowCursor cursor(parts, tile * kFixedTile);
  for (size_t i = 0; i < rows; ++i, cursor.NextRow()) {
    const size_t r = tile * kFixedTile + i;
    if (cursor.masked()) cursor.LoadMask();
    size_t k = 0;
    for (size_t g = 0; g < parts.groups.size(); ++g) {
      const FixedGroup& group = parts.groups[g];
      if (group.bits == 0) continue;
      const std::span<const uint16_t> of_group = cursor.Codes(g);
      const uint16_t* next = of_group.data();
      const ScaleCode scale = CodeOfScale(parts, group, r);
      const int zero = Zero(parts, group, r);
      for (size_t first = 0; first < group.count; first += kFixedBlock, ++k) {
        const FixedBlock& block = layout.blocks[k];
        heads[k][i] = scale.bits;
        heads[k][rows + i] = static_cast<uint8_t>(zero);
        size_t count = block.count;
        if (layout.masked()) {
          const size_t coded = group.coded_start + first;
          count = CountKept(cursor.words(), coded, block.count);
          uint8_t* const mask = heads[k].data() + 2 * rows + i * block.mask_bytes;
          if (layout.mask == parts.mask) {
            CopyBits(MaskRow(parts, r), parts.mask.RowBits(coded), parts.mask.RowBits(block.count), mask);
          } else {
            const size_t words = (parts.coded_cols + 63) / 64;
            CopyBits(std::as_bytes(std::span(cursor.words(), words)), coded, block.count, mask);
          }
        }
        uint8_t bytes[kFixedBlock + 8];
        for (size_t j = 0; j < count; ++j) bytes[j] = static_cast<uint8_t>(next[j]);
        std::memset(bytes + count, 0, 8);
        PackPlanes(bytes, count, block.bits, codes[k].data() + at[k]);
        at[k] += PlaneBytes(block.bits, count);
        next += count;
      }
    }
  }
  FixedTile made;
  size_t size = 0;
  for (size_t k = 0; k < blocks; ++k) {
    made.begin.push_back(static_cast<uint32_t>(size));
    size += heads[k].size() + at[k];
  }
  made.bytes.reserve(size);
  for (size_t k = 0; k < blocks; ++k) {
    made.bytes.insert(made.bytes.end(), heads[k].begin(), heads[k].end());
    made.bytes.insert(made.bytes.end(), codes[k].begin(), codes[k].begin() + static_cast<ptrdiff_t>(at[k]));
  }
  return made;
}

size_t ReadBlockMask(const FixedLayout& layout, const FixedBlock& block, const uint8_t* mask,
                     uint64_t* words) {
  if (layout.mask == MaskKind::kBitmap) {
    std::memcpy(words, mask, 2 * sizeof(uint64_t));
    if (block.count < 64) words[0] &= (uint64_t{1} << block.count) - 1;
    if (block.count <= 64) words[1] = 0;
    if (block.count > 64 && block.count < 128) words[1] &= (uint64_t{1} << (block.count - 64)) - 1;
  } else {
    words[1] = 0;
    // As if there were more bytes: whole words are loaded.
    ReadMaskRow(layout.mask, block.count, std::as_bytes(std::span(mask, block.mask_bytes + sizeof(uint64_t))),
                words);
  }
  return static_cast<size_t>(std::popcount(words[0]) + std::popcount(words[1]));
}

void UnpackBlockRow(const FixedLayout& layout, const FixedBlock& block, size_t rows, const uint8_t* begin,
                    size_t row, int16_t* integers) {
  const FixedBlockBytes of(block, rows, begin);
  const int zero = of.zeros[row];
  uint8_t codes[kFixedBlock];
  if (!layout.masked()) {
    UnpackPlanes(of.codes + row * PlaneBytes(block.bits, block.count), block.count, block.bits, codes);
    for (size_t j = 0; j < block.count; ++j) integers[j] = static_cast<int16_t>(codes[j] - zero);
    return;
  }
  const uint8_t* planes = of.codes;
  uint64_t words[2];
  for (size_t r = 0; r < row; ++r) {
    planes += PlaneBytes(block.bits, ReadBlockMask(layout, block, of.masks + r * block.mask_bytes, words));
  }
  const size_t kept = ReadBlockMask(layout, block, of.masks + row * block.mask_bytes, words);
  UnpackPlanes(planes, kept, block.bits, codes);
  for (size_t j = 0, next = 0; j < block.count; ++j) {
    const bool is_kept = (words[j / 64] >> (j % 64) & 1) != 0;
    integers[j] = static_cast<int16_t>(is_kept ? codes[next++] - zero : 0);
  }
}

}  // namespace mica
