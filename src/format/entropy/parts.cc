#include "format/entropy/parts.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "format/entropy/rans.h"
#include "format/entropy/side_stream.h"
#include "format/entropy/tables.h"

namespace mica {
namespace {

std::vector<uint32_t> Words(std::span<const std::byte> bytes) {
  std::vector<uint32_t> words(bytes.size() / sizeof(uint32_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(uint32_t));
  return words;
}

}  // namespace

EntropyParts WithFacts(const EntropyFacts& facts) {
  EntropyParts parts;
  parts.rows = facts.rows;
  parts.cols = facts.cols;
  parts.states = facts.states;
  parts.lanes = facts.lanes;
  parts.tile_rows = facts.tile_rows;
  parts.row_resolution = facts.row_resolution;
  parts.tables.first_knot = facts.first_knot;
  return parts;
}

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
  parts.range = TableRange(parts.tables);
  parts.slots.resize(parts.range.size() * kFrequencySum);
  uint32_t* slots = parts.slots.data();
  parts.range.ForTables(parts.tables, [&](const FrequencyTable& table, int) {
    FillSlots(table, slots);
    slots += kFrequencySum;
  });
  return true;
}

StoredBits BitsOf(const EntropyParts& parts) {
  StoredBits bits;
  bits.codes = 8 * parts.codes.size();
  bits.scales = 8 * parts.side.size();
  bits.groups = 8 * (parts.knots.size() + parts.tile_lengths.size());
  return bits;
}

TileRows::TileRows(const EntropyParts& parts, size_t tile, size_t first_row, MatrixView<float> out)
    : stream(
          parts.codes.subspan(parts.tile_begin[tile], parts.tile_begin[tile + 1] - parts.tile_begin[tile])) {
  const size_t end = std::min(parts.rows, (tile + 1) * parts.tile_rows);
  for (size_t p = tile * parts.tile_rows; p < end; ++p) {
    const size_t r = parts.order[p];
    const bool wanted = r >= first_row && r - first_row < out.rows;
    row_class.push_back(parts.row_class[r]);
    row_scale.push_back(EntropyStep(parts.row_step[r], parts.row_resolution));
    target.push_back(wanted ? out.row(r - first_row) : nullptr);
  }
}

TileRows::TileRows(const EntropyParts& parts, size_t tile)
    : stream(
          parts.codes.subspan(parts.tile_begin[tile], parts.tile_begin[tile + 1] - parts.tile_begin[tile])) {
  const size_t end = std::min(parts.rows, (tile + 1) * parts.tile_rows);
  for (size_t p = tile * parts.tile_rows; p < end; ++p) row_class.push_back(parts.row_class[parts.order[p]]);
}

bool TileRows::any() const {
  return std::any_of(target.begin(), target.end(), [](const float* row) { return row != nullptr; });
}

namespace {

// of_row(r, first, count, n, quantiser): those of one row of a chunk of columns; of_chunk(first, count): the
// chunk is whole.
template <typename OfRow, typename OfChunk>
bool DecodeLanes(const EntropyParts& parts, const TileRows& tile, const OfRow& of_row,
                 const OfChunk& of_chunk) {
  const size_t lanes = parts.lanes;
  const Trellis& trellis = TrellisOf(parts.states);
  uint32_t states[kMostLanes];
  if (tile.stream.size() < lanes * sizeof(uint32_t)) return false;
  std::memcpy(states, tile.stream.data(), lanes * sizeof(uint32_t));
  if (std::any_of(states, states + lanes, [](uint32_t state) { return state < kRansLow; })) return false;
  const std::byte* words = tile.stream.data() + lanes * sizeof(uint32_t);
  WordStream stream(tile.stream, ChunkRowBytes(lanes));
  for (size_t first = 0; first < parts.cols; first += lanes) {
    const size_t count = std::min(lanes, parts.cols - first);
    uint8_t machine[kMostLanes] = {};
    for (size_t r = 0; r < tile.count(); ++r) {
      if (!stream.Reach(words)) return false;
      uint32_t slot[kMostLanes];
      int quantiser[kMostLanes], raw_bits[kMostLanes], n[kMostLanes];
      for (size_t l = 0; l < count; ++l) {
        const int k = tile.row_class[r] + parts.col_class[first + l];
        quantiser[l] = trellis.quantiser[machine[l]];
        raw_bits[l] = RawBits(std::clamp(k, parts.range.first(), parts.range.last()));
        slot[l] =
            TakeSymbol(parts.slots.data() + parts.range.Index(quantiser[l], k) * kFrequencySum, states[l]);
        Refill(states[l], words);
      }
      for (size_t l = 0; l < count; ++l) {
        const bool raw = raw_bits[l] > 0 && HasRawBits(slot[l]);
        n[l] = IntegerOf(slot[l], raw_bits[l], raw ? TakeRaw(raw_bits[l], states[l]) : 0);
        Refill(states[l], words);
      }
      for (size_t l = 0; l < count; ++l) {
        if ((slot[l] & rans_slot::kEscape) == 0) continue;
        n[l] = TakeEscaped(states[l]);
        Refill(states[l], words);
      }
      for (size_t l = 0; l < count; ++l)
        machine[l] = trellis.next[machine[l]][static_cast<size_t>(n[l] & 1)];
      of_row(r, first, count, n, quantiser);
    }
    of_chunk(first, count);
  }
  return stream.AtEnd(words) && std::all_of(states, states + lanes, [](uint32_t x) { return x == kRansLow; });
}

}  // namespace

bool DecodeTile(const EntropyParts& parts, const TileRows& tile) {
  const Trellis& trellis = TrellisOf(parts.states);
  return DecodeLanes(
      parts, tile,
      [&](size_t r, size_t first, size_t count, const int* n, const int* quantiser) {
        for (size_t l = 0; l < count && tile.target[r] != nullptr; ++l) {
          tile.target[r][first + l] = static_cast<float>(trellis.Level(n[l], quantiser[l])) *
                                      (tile.row_scale[r] * parts.col_scale[first + l]);
        }
      },
      [](size_t, size_t) {});
}

bool DecodeTile(const EntropyParts& parts, const TileRows& tile, const IntegerSink& sink) {
  std::vector<int16_t> integers(tile.count() * parts.lanes);
  return DecodeLanes(
      parts, tile,
      [&](size_t r, size_t, size_t count, const int* n, const int*) {
        for (size_t l = 0; l < count; ++l) integers[r * parts.lanes + l] = static_cast<int16_t>(n[l]);
      },
      [&](size_t first, size_t count) { sink(first, count, integers.data()); });
}

}  // namespace mica
