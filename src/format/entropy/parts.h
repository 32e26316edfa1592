// The stored tensors of a matrix of coding `entropy`, checked once and then decoded by tiles, by any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "format/entropy/entropy_matrix.h"
#include "format/stored_bits.h"

namespace mica {

struct EntropyParts : EntropyFrame {
  std::string name;        // of the matrix, for messages
  std::string codes_name;  // file and tensor of `codes`, for messages
  size_t lanes = 1;

  // Bytes as stored (docs/format.md), not owned, possibly unaligned.
  std::span<const std::byte> codes;         // [tiles] streams
  std::span<const std::byte> tile_lengths;  // uint32_t [tiles] bytes of each stream
  std::span<const std::byte> knots;         // words of PackKnot [quantisers, knots]
  std::span<const std::byte> side;

  // What follows from them, beside the frame.
  std::vector<uint64_t> tile_begin;  // [tiles + 1] bytes, where a tile's stream begins in codes
  std::vector<float> col_scale;      // [cols] column steps
  std::vector<uint32_t> order;       // [rows] stored position -> row
  bool in_order = true;              // order[p] = p
  TableRange range;
  std::vector<uint32_t> slots;  // [range.size(), kFrequencySum] FillSlots of all tables
};

// Parts with these facts and nothing else.
EntropyParts WithFacts(const EntropyFacts& facts);

// The parts are checked in this order, all facts being set.
// Sets tables from the knots of each quantiser, 4 * quantisers * of_quantiser bytes; throws Error that says
// which entry is wrong, but not in which tensor.
void ReadKnots(size_t of_quantiser, EntropyParts& parts);
// Sets tile_begin from tile_lengths; bytes of all codes.
uint64_t ReadTileLengths(EntropyParts& parts);
// Sets the steps and classes and what else follows; false when `side` does not hold those of so many rows and
// columns.
bool ReadSide(EntropyParts& parts);

// Bits of all stored tensors.
StoredBits BitsOf(const EntropyParts& parts);

// The rows of one tile in stored order, as a decoder needs them.
struct TileRows {
  // Those rows are wanted that lie in [first_row, first_row + out.rows); out: [any, cols].
  TileRows(const EntropyParts& parts, size_t tile, size_t first_row, MatrixView<float> out);
  // None of them is wanted as weights.
  TileRows(const EntropyParts& parts, size_t tile);
  size_t count() const { return row_class.size(); }
  bool any() const;  // are wanted

  std::span<const std::byte> stream;  // of the tile
  std::vector<int32_t> row_class;
  // Of those that are wanted as weights, else empty.
  std::vector<float> row_scale;
  std::vector<float*> target;  // [cols] each where the weights of the row go; null: nowhere
};
// Bytes of a stream that one row of a chunk of columns may touch: two words a lane, and a vector of words
// that is loaded for as few as none.
constexpr size_t ChunkRowBytes(size_t lanes) { return (2 * lanes + 2 * kMostLanes) * sizeof(uint16_t); }

// Decodes a tile; false when its stream is not one. The vectorised decoder of ops/codes gives the same bytes.
bool DecodeTile(const EntropyParts& parts, const TileRows& tile);
// Takes the integers n [rows of the tile, lanes] of columns [first, first + count), which come in rising
// order, lanes at a time; n is valid until the call ends.
using IntegerSink = std::function<void(size_t first, size_t count, const int16_t* n)>;
// Its integers instead; when it is false, some may have been given.
bool DecodeTile(const EntropyParts& parts, const TileRows& tile, const IntegerSink& sink);

}  // namespace mica
