// One compressed matrix of coding `gguf` while its model is under way: rows of blocks, as the file will hold
// them, in the rows' own order.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/matrix.h"
#include "format/gguf/types.h"
#include "format/stored_bits.h"

namespace mica {

struct GgufFacts {
  size_t rows = 0, cols = 0;  // cols: a multiple of the type's block_cols
  GgmlType type = GgmlType::kF16;
};

struct GgufParts : GgufFacts {
  std::string name;                   // of the matrix, for messages
  std::span<const std::byte> blocks;  // [rows, RowBytes], not owned
};

// Bytes of a row of so many columns.
inline size_t RowBytes(GgmlType type, size_t cols) {
  const GgmlTypeFacts& facts = FactsOf(type);
  return cols / facts.block_cols * facts.block_bytes;
}

// All bits count as codes: scales stand among them.
inline StoredBits BitsOf(const GgufParts& parts) { return {.codes = 8 * parts.blocks.size()}; }

// out [any, cols] = rows [first_row, first_row + out.rows), on the calling thread.
void DecodeRows(const GgufParts& parts, size_t first_row, MatrixView<float> out);

}  // namespace mica
