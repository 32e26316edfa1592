// Packs a matrix of coding `fixed`, one scale group at a time.
#pragma once

#include <cstddef>
#include <vector>

#include "format/fixed/fixed_matrix.h"
#include "format/packed_matrix.h"

namespace mica {

// The scale groups of a matrix that is to be packed; aborts when its members do not fit each other.
std::vector<ScaleGroup> CheckedGroups(const FixedMatrix& matrix);

// The code stream of one scale group: row by row, left to right, kept weights only, padded to
// kGroupAlignment.
std::vector<std::byte> EncodeGroup(const FixedMatrix& matrix, const ScaleGroup& group);

// All parts; streams: [groups] what EncodeGroup gave.
PackedMatrix Assemble(const FixedMatrix& matrix, const std::vector<ScaleGroup>& groups,
                      std::vector<std::vector<std::byte>> streams);

}  // namespace mica
