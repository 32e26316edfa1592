// The stored tensors of a matrix of coding `entropy`, checked once and then decoded by tiles, by any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "format/entropy/entropy_matrix.h"
#include "format/entropy/tile_coder.h"
#include "format/stored_bits.h"

namespace mica {

struct EntropyParts : EntropyFrame {
  std::string name;        // of the matrix, for messages
  std::string codes_name;  // file and tensor of `codes`, for messages

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
  TileCoder coder;
};

// The parts are checked in this order, rows, cols, states, row_resolution and tables.first_knot being set.
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

// Decodes those rows of a tile that lie in [first_row, first_row + out.rows); out: [any, cols]. False when
// the stream does not end where it should, which is looked at when the whole tile was decoded. Rows in their
// own order are decoded no further than they are asked for.
bool DecodeTile(const EntropyParts& parts, size_t tile, size_t first_row, MatrixView<float> out);

}  // namespace mica
