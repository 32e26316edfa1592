#include "format/entropy/tile_coder.h"

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace mica {

TileCoder::TileCoder(const EntropyTables& tables, int states, size_t lanes)
    : range_(tables), lanes_(lanes), trellis_(&TrellisOf(states)) {
  MICA_CHECK(IsLaneCount(lanes));
  MICA_CHECK(tables.quantisers() == (states > 1 ? 2 : 1));
  range_.ForTables(tables, [&](const FrequencyTable& table, int entropy_class) {
    tables_.emplace_back(table, RawBits(entropy_class));
  });
}

void TileCoder::PutRow(const int16_t* n, const uint16_t* tables, size_t count, uint32_t* states,
                       ReversedWords& words) const {
  // What the decoder reads last comes first: escapes, then raw bits, then symbols, from the last lane on.
  uint8_t symbols[kMostLanes];
  bool escapes = false, raw = false;
  for (size_t l = 0; l < count; ++l) {
    const SymbolTable& table = tables_[tables[l]];
    MICA_CHECK(n[l] >= -kMaxInteger);
    const uint32_t symbol = table.SymbolOf(n[l]);
    symbols[l] = static_cast<uint8_t>(symbol);
    escapes |= symbol == table.escape();
    raw |= table.raw_bits() != 0;
  }
  words.Reserve(3 * count);
  for (size_t l = count; escapes && l-- > 0;) {
    const SymbolTable& table = tables_[tables[l]];
    if (symbols[l] == table.escape()) table.PutEscaped(n[l], states[l], words);
  }
  for (size_t l = count; raw && l-- > 0;) {
    const SymbolTable& table = tables_[tables[l]];
    if (table.raw_bits() != 0 && symbols[l] != 0 && symbols[l] != table.escape())
      table.PutRawBits(n[l], states[l], words);
  }
  for (size_t l = count; l-- > 0;) tables_[tables[l]].PutSymbol(symbols[l], states[l], words);
}

std::vector<std::byte> TileCoder::Encode(const EntropyFrame& matrix, MatrixView<const int16_t> n,
                                         std::span<const uint32_t> order, size_t tile) const {
  const size_t begin = tile * matrix.tile_rows;
  const size_t rows = std::min(matrix.tile_rows, matrix.rows - begin);
  const size_t chunks = (matrix.cols + lanes_ - 1) / lanes_;
  uint32_t states[kMostLanes];
  std::fill_n(states, kMostLanes, kRansLow);
  ReversedWords words;
  words.Reserve(rows * matrix.cols / 4);
  std::vector<uint16_t> tables(rows * lanes_);
  for (size_t chunk = chunks; chunk-- > 0;) {
    const size_t first = chunk * lanes_, count = std::min(lanes_, matrix.cols - first);
    // The trellis runs downwards, the coder upwards: quantisers first.
    uint8_t machine[kMostLanes] = {};
    for (size_t r = 0; r < rows; ++r) {
      const size_t row = order[begin + r];
      const int16_t* of_row = n.row(row) + first;
      for (size_t l = 0; l < count; ++l) {
        tables[r * lanes_ + l] = static_cast<uint16_t>(range_.Index(
            trellis_->quantiser[machine[l]], matrix.row_class[row] + matrix.col_class[first + l]));
        machine[l] = trellis_->next[machine[l]][static_cast<size_t>(of_row[l] & 1)];
      }
    }
    for (size_t r = rows; r-- > 0;)
      PutRow(n.row(order[begin + r]) + first, tables.data() + r * lanes_, count, states, words);
  }
  return words.Bytes({states, lanes_});
}

}  // namespace mica
