// Packs a matrix of coding `fixed`, its codes one scale group at a time.
#pragma once

#include <cstddef>
#include <vector>

#include "format/fixed/fixed_matrix.h"
#include "format/packed_matrix.h"

namespace mica {

// The scale groups of a matrix that is to be packed; aborts when its members do not fit each other.
std::vector<ScaleGroup> CheckedGroups(const FixedFrame& matrix);
// Aborts when the integers are not as many as the frame says.
void CheckIntegers(const FixedMatrix& matrix, const std::vector<ScaleGroup>& groups);

// The code stream of one scale group: row by row, left to right, kept weights only, padded to
// kGroupAlignment.
std::vector<std::byte> EncodeGroup(const FixedMatrix& matrix, const ScaleGroup& group);

// What is stored of a matrix's integers; empty where there are none.
struct FixedStreams {
  std::vector<std::byte> codes;   // of all groups
  std::vector<std::byte> scales;  // [scale groups, rows] ScaleCode
  std::vector<std::byte> zeros;   // of all groups that have them, each padded to a byte
  std::vector<std::byte> mask;    // [rows, RowBytes]
};
// codes: [groups] what EncodeGroup gave.
FixedStreams Joined(const FixedMatrix& matrix, const std::vector<ScaleGroup>& groups,
                    std::vector<std::vector<std::byte>> codes);

// All parts.
PackedMatrix Assemble(const FixedFrame& matrix, const std::vector<ScaleGroup>& groups, FixedStreams streams);

}  // namespace mica
