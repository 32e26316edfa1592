// Masks of the packed format, one row at a time, as bitmaps: bit i of the row is 1 when coded column i
// (stored order, columns of width 0 left out) is kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/mask/mask_kind.h"

namespace mica {

// Appends one row: keep[i] for the coded columns. Aborts when an n:m cell does not keep exactly n.
void AppendMaskRow(MaskKind mask, std::span<const uint8_t> keep, std::vector<std::byte>& bytes);

// The bitmap of one row, words[i / 64] bit i % 64, from its stored bytes; words: (coded_cols + 63) / 64, bits
// beyond coded_cols are 0. False when an n:m index is none of the patterns (the cell is then read as
// pruned).
bool ReadMaskRow(MaskKind mask, size_t coded_cols, std::span<const std::byte> bytes, uint64_t* words);

// Ones among bits [first, first + count) of a bitmap.
size_t CountKept(const uint64_t* words, size_t first, size_t count);

}  // namespace mica
