// From the integers of a row to the stored blocks of a GGUF tensor: the inverse of decode.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/half.h"
#include "format/gguf/types.h"

namespace mica {

// What format/blocks/block_grid.h says of one row, in the natural order of its columns.
struct BlockRow {
  const uint8_t* codes = nullptr;     // [cols] level - level_low, or the place in the table
  const uint16_t* vectors = nullptr;  // [cols / vector_cols] of a codebook, instead of codes
  const uint8_t* signs = nullptr;     // [cols / 8] of a codebook: bit k makes column k negative
  const uint8_t* s = nullptr;         // [cols / group_cols] where there are such integers
  const uint8_t* m = nullptr;
  const F16* d = nullptr;     // [cols / block_cols]
  const F16* dmin = nullptr;  // the same, where there are offsets
};

// bytes: out, the blocks of a row of `cols` columns, a multiple of the type's block_cols. The type must have
// a grid (CanSolve).
void EncodeRow(GgmlType type, const BlockRow& row, size_t cols, std::span<std::byte> bytes);

}  // namespace mica
