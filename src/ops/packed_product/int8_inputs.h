// Activations of a product with integer weights: each scaled by its column's factor and rounded to 8 bits, in
// blocks of columns that share a scale.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/matrix.h"

namespace mica {

struct Int8Inputs {
  // [tokens, stride] integers within +-127, zero behind the last column.
  std::vector<int8_t> values;
  size_t stride = 0;
  // [tokens, blocks]: factor[c] x[t, order[c]] = scale * value up to half a scale; 0 for a block of zeros.
  std::vector<float> scales;
  // [tokens, blocks] sums of the values.
  std::vector<int32_t> sums;
};

// Column c of the result is column order[c] of x, or c where `order` is empty. factors: [cols], or empty for
// ones. Block b is columns [begin[b], begin[b + 1]) of the result; begin has one entry more than there are
// blocks, of which the last is the number of columns of the result. stride: at least that number.
void RoundToInt8(MatrixView<const float> x, std::span<const float> factors, std::span<const uint32_t> order,
                 std::span<const uint32_t> begin, size_t stride, Int8Inputs& out);

}  // namespace mica
