// Packs a matrix of coding `entropy`; TileCoder::Encode packs its tiles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/entropy/entropy_matrix.h"
#include "format/packed_matrix.h"

namespace mica {

// Aborts when the members of a matrix that is to be packed do not fit each other.
void CheckFrame(const EntropyFrame& matrix);

// The streams of all tiles, one after the other.
struct EntropyStreams {
  std::vector<std::byte> codes;
  std::vector<uint32_t> lengths;  // [tiles] bytes
};
// streams: [tiles] what TileCoder::Encode gave.
EntropyStreams Joined(std::vector<std::vector<std::byte>> streams);

// All parts; streams: of so many lanes. The model (tables and classes) is stored as it stands in the matrix.
PackedMatrix Assemble(const EntropyFrame& matrix, size_t lanes, EntropyStreams streams);

}  // namespace mica
