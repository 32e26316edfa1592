// Streams of coding `entropy`: tiles of integers, and the small vectors of steps and classes beside them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "format/entropy/entropy_matrix.h"
#include "format/entropy/rans.h"
#include "format/stored_bits.h"

namespace mica {

// Integers of a tile are coded row by row; column c belongs to lane c % kLanes. The lanes' states are
// independent and share one stream of words.
inline constexpr size_t kLanes = 4;

// All tables of a matrix, by quantiser and class.
class TileCoder {
 public:
  TileCoder(const EntropyTables& tables, int states);

  // Stored rows [tile * kCodedTileRows, ...) of the matrix as bytes: the lanes' states (low word first), then
  // the words. order: StoredRowOrder.
  std::vector<std::byte> Encode(const EntropyMatrix& matrix, std::span<const uint32_t> order,
                                size_t tile) const;

  // Decodes the first `rows` rows of a tile and hands each to row(r, levels), levels [cols] as multiples of
  // the step. row_class(r) is the class of the row. False when the stream does not end where it should (only
  // looked at when `rows` is the whole tile).
  template <typename RowClass, typename Row>
  bool Decode(std::span<const std::byte> stream, size_t rows, bool whole_tile, RowClass&& row_class,
              std::span<const int16_t> col_class, Row&& row) const;

 private:
  size_t Index(int quantiser, int entropy_class) const {
    const int k = entropy_class < first_ ? first_ : entropy_class > last_ ? last_ : entropy_class;
    return static_cast<size_t>((k - first_) * quantisers_ + quantiser);
  }
  int first_, last_, quantisers_;
  const Trellis* trellis_;
  std::vector<RansTable> tables_;  // [class - first][quantiser]
};

// Classes are coded relative to what the steps predict: four classes less for each octave of the step,
// rounded up.
inline int PredictedClass(int step, int resolution) {
  return -((4 * step) >> (resolution == kStepResolution ? 3 : 6));
}

// What stands at the head of L.side.
struct SideHeader {
  // Of row steps, row classes, row keys, column steps, column classes; one is not used.
  int16_t base[6];     // subtracted before coding
  uint32_t tables[5];  // PackKnot of their frequency tables
};
static_assert(sizeof(SideHeader) == 32);

std::vector<std::byte> EncodeSide(const EntropyMatrix& matrix);
// Fills row_step, row_class, row_key, col_step and col_class of a matrix whose rows, cols and row_resolution
// are set; false when the bytes are not such a stream or a step is out of range.
bool DecodeSide(std::span<const std::byte> bytes, EntropyMatrix& matrix);

// The bits PackEntropy stores, without coding the integers: within 0.1 % (and 64 bits a tile).
StoredBits EntropyStoredBits(const EntropyMatrix& matrix);

template <typename RowClass, typename Row>
bool TileCoder::Decode(std::span<const std::byte> stream, size_t rows, bool whole_tile, RowClass&& row_class,
                       std::span<const int16_t> col_class, Row&& row) const {
  const size_t cols = col_class.size();
  // The longest a row can be: two words an integer; one word more is touched.
  const size_t longest_row = (2 * cols + 1) * sizeof(uint16_t);
  if (stream.size() < kLanes * sizeof(uint32_t)) return false;
  uint32_t lanes[kLanes];
  std::memcpy(lanes, stream.data(), sizeof(lanes));
  const std::byte* words = stream.data() + sizeof(lanes);
  const std::byte* end = stream.data() + stream.size();
  std::vector<std::byte> padded;  // the last rows are read from a copy that may be read beyond its end
  const bool scalar = quantisers_ == 1;
  std::vector<uint8_t> states(scalar ? 0 : cols, 0);
  std::vector<int32_t> levels(cols);
  // The tables of a row by column class, limited once a row and not once an integer.
  const auto [low, high] = std::minmax_element(col_class.begin(), col_class.end());
  const int lowest = *low;
  const size_t class_count = static_cast<size_t>(*high - lowest + 1);
  const size_t quantisers = static_cast<size_t>(quantisers_);
  std::vector<const RansTable*> of_class(class_count * quantisers);
  std::vector<uint32_t> at(cols);  // where a column's tables stand in of_class
  for (size_t c = 0; c < cols; ++c)
    at[c] = static_cast<uint32_t>(static_cast<size_t>(col_class[c] - lowest) * quantisers);
  for (size_t r = 0; r < rows; ++r) {
    if (words > end) return false;
    if (padded.empty() && static_cast<size_t>(end - words) < longest_row) {
      padded.assign(words, end);
      padded.resize(padded.size() + longest_row);
      end = padded.data() + (end - words);
      words = padded.data();
    }
    const int in_row = row_class(r) + lowest;
    for (size_t i = 0; i < of_class.size(); ++i) {
      of_class[i] =
          &tables_[Index(static_cast<int>(i % quantisers), in_row + static_cast<int>(i / quantisers))];
    }
    const auto decode = [&](size_t c, uint32_t& state) {
      if (scalar) {
        levels[c] = of_class[at[c]]->Decode(state, words);
        return;
      }
      const int q = trellis_->quantiser[states[c]];
      const int n = of_class[at[c] + static_cast<size_t>(q)]->Decode(state, words);
      levels[c] = trellis_->Level(n, q);
      states[c] = trellis_->next[states[c]][static_cast<size_t>(n & 1)];
    };
    size_t c = 0;
    uint32_t x0 = lanes[0], x1 = lanes[1], x2 = lanes[2], x3 = lanes[3];
    for (; c + kLanes <= cols; c += kLanes) {
      decode(c, x0);
      decode(c + 1, x1);
      decode(c + 2, x2);
      decode(c + 3, x3);
    }
    lanes[0] = x0, lanes[1] = x1, lanes[2] = x2, lanes[3] = x3;
    for (; c < cols; ++c) decode(c, lanes[c % kLanes]);
    row(r, std::span<const int32_t>(levels));
  }
  if (!whole_tile) return true;
  for (const uint32_t state : lanes) {
    if (state != kRansLow) return false;
  }
  return words == end;
}

}  // namespace mica
