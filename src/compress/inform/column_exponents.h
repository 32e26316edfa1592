// Columns of a matrix whose weights are far larger or smaller than those of the others: they cannot share a
// scale with them, and get a power of two of their own.
#pragma once

#include <cstdint>
#include <vector>

#include "device/tensor.h"

namespace mica {

// [cols] e_j with w(r, j) = 2^e_j times something of the size of the other columns' weights: 0 for columns
// within three octaves of the median; empty when all are. w: [rows, cols] FP32
// on any device.
std::vector<int8_t> ColumnExponents(ConstTensor w);

}  // namespace mica
