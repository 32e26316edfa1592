// Packs a matrix of coding `entropy`; TileCoder::Encode packs its tiles.
#pragma once

#include <cstddef>
#include <vector>

#include "format/entropy/entropy_matrix.h"
#include "format/packed_matrix.h"

namespace mica {

// Aborts when the members of a matrix that is to be packed do not fit each other.
void CheckMatrix(const EntropyMatrix& matrix);

// All parts; streams: [tiles] what TileCoder::Encode gave with so many lanes. The model (tables and classes)
// is stored as it stands in the matrix.
PackedMatrix Assemble(const EntropyMatrix& matrix, size_t lanes, std::vector<std::vector<std::byte>> streams);

}  // namespace mica
