#include "format/entropy/parts.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "format/entropy/tables.h"

namespace mica {
namespace {

std::vector<uint32_t> Words(std::span<const std::byte> bytes) {
  std::vector<uint32_t> words(bytes.size() / sizeof(uint32_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(uint32_t));
  return words;
}

}  // namespace

void ReadKnots(size_t of_quantiser, EntropyParts& parts) {
  const std::vector<uint32_t> words = Words(parts.knots);
  MICA_CHECK(words.size() == of_quantiser * (parts.states > 1 ? 2 : 1));
  for (size_t i = 0; i < words.size(); ++i) {
    const EntropyKnot knot = UnpackKnot(words[i]);
    if (!IsValid(knot)) Fail("entry {} has frequency {} for zero, expected 1 to {}", i, knot.zero, kMaxZero);
    parts.tables.knots[i / of_quantiser].push_back(knot);
  }
}

uint64_t ReadTileLengths(EntropyParts& parts) {
  parts.tile_begin = {0};
  for (const uint32_t length : Words(parts.tile_lengths))
    parts.tile_begin.push_back(parts.tile_begin.back() + length);
  return parts.tile_begin.back();
}

bool ReadSide(EntropyParts& parts) {
  // An integer of the side stream takes at least 0.0014 bit; without this a few bytes could ask for
  // gigabytes.
  if ((2 * parts.rows + parts.cols) / 8192 > parts.side.size() || !DecodeSide(parts.side, parts))
    return false;
  for (const int16_t step : parts.col_step) parts.col_scale.push_back(EntropyStep(step, kStepResolution));
  parts.order = StoredRowOrder(parts);
  parts.in_order = std::is_sorted(parts.order.begin(), parts.order.end());
  parts.coder = TileCoder(parts.tables, parts.states);
  return true;
}

StoredBits BitsOf(const EntropyParts& parts) {
  StoredBits bits;
  bits.codes = 8 * parts.codes.size();
  bits.scales = 8 * parts.side.size();
  bits.groups = 8 * (parts.knots.size() + parts.tile_lengths.size());
  return bits;
}

bool DecodeTile(const EntropyParts& parts, size_t tile, size_t first_row, MatrixView<float> out) {
  const size_t last_row = first_row + out.rows;
  const size_t last_position = parts.in_order ? last_row : parts.rows;
  const size_t begin = tile * kCodedTileRows;
  const size_t tile_rows = std::min(kCodedTileRows, parts.rows - begin);
  const size_t rows = std::min(tile_rows, last_position - begin);
  const uint32_t* order = parts.order.data() + begin;
  const auto stream =
      parts.codes.subspan(parts.tile_begin[tile], parts.tile_begin[tile + 1] - parts.tile_begin[tile]);
  const auto row_class = [&](size_t p) { return int{parts.row_class[order[p]]}; };
  const auto write_row = [&](size_t p, std::span<const int32_t> levels) {
    const size_t r = order[p];
    if (r < first_row || r >= last_row) return;
    const float row_step = EntropyStep(parts.row_step[r], parts.row_resolution);
    float* weights = out.row(r - first_row);
    for (size_t c = 0; c < levels.size(); ++c)
      weights[c] = static_cast<float>(levels[c]) * (row_step * parts.col_scale[c]);
  };
  return parts.coder.Decode(stream, rows, rows == tile_rows, row_class, parts.col_class, write_row);
}

}  // namespace mica
