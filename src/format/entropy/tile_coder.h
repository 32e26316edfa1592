// The encoder of the streams of coding `entropy`: a tile of integers each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "format/entropy/entropy_matrix.h"
#include "format/entropy/rans.h"

namespace mica {

// All tables of a matrix, by quantiser and class.
class TileCoder {
 public:
  // lanes: IsLaneCount.
  TileCoder(const EntropyTables& tables, int states, size_t lanes);

  // Stored rows [tile * matrix.tile_rows, ...) of the matrix with the integers n, [rows, cols], as bytes: the
  // lanes' states (low word first), then the words. order: StoredRowOrder.
  std::vector<std::byte> Encode(const EntropyFrame& matrix, MatrixView<const int16_t> n,
                                std::span<const uint32_t> order, size_t tile) const;

 private:
  // Puts the integers of one row and chunk of columns, n [count], in front; tables [count].
  void PutRow(const int16_t* n, const uint16_t* tables, size_t count, uint32_t* states,
              ReversedWords& words) const;

  TableRange range_;
  size_t lanes_;
  const Trellis* trellis_;
  std::vector<SymbolTable> tables_;  // [range_.size()]
};

}  // namespace mica
