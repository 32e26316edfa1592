// Columns of a matrix whose weights are far larger or smaller than those of the others: they cannot share a
// scale with them, and get a power of two of their own.
#pragma once

#include <cstdint>
#include <vector>

#include "base/matrix.h"

namespace mica {

// [cols] e_j with w(r, j) = 2^e_j times something of the size of the other columns' weights: 0 for columns
// within three octaves of the median; empty when all are. w: [rows, cols].
std::vector<int8_t> ColumnExponents(MatrixView<const float> w);

}  // namespace mica
