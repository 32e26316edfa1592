// How many lanes the tiles of a matrix of coding `entropy` are written with.
#pragma once

#include <cstddef>
#include <vector>

#include "format/entropy/entropy_matrix.h"

namespace mica {

// What a lane leaves unused in the state that each tile begins with, on average.
inline constexpr double kLaneBits = 24;

// Bits that an integer takes on average if its tables are right.
double ExpectedBits(const EntropyFrame& frame);
// The same of each row, [rows].
std::vector<double> ExpectedBitsOfRows(const EntropyFrame& frame);

// The most lanes that cost so little of a tile's expected bits as a decoder's speed is worth: one tenth of a
// percent, two for as few as a vector has. Classes and tables of the frame are set.
size_t ChooseLanes(const EntropyFrame& frame);

}  // namespace mica
