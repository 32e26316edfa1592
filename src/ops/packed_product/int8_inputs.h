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

// Activations in two digits, the second of what the first leaves, in blocks of columns that lie apart.
inline constexpr size_t kDigitBlock = 128;
struct DigitInputs {
  size_t tokens = 0, blocks = 0;
  // [tokens, blocks, 2, kDigitBlock] integers within +-127, zero behind the block's columns.
  std::vector<int8_t> values;
  // [tokens, blocks]: x times its power of two = scale * (254 * first + second) up to half a scale; 0 for a
  // block of zeros.
  std::vector<float> scales;
  // [tokens, blocks] sums of 254 * first + second.
  std::vector<int32_t> sums;

  const int8_t* Values(size_t token, size_t block) const {
    return values.data() + (token * blocks + block) * 2 * kDigitBlock;
  }
};
struct DigitColumns {
  uint32_t first = 0, count = 0;  // positions, at most kDigitBlock
};
// Position p of a block is column order[p] of x, or p where `order` is empty, times 2^exponents[p], or
// 2^exponent where `exponents` is empty; exponents within +-kMaxExponent.
void RoundToDigits(MatrixView<const float> x, std::span<const uint16_t> order,
                   std::span<const int8_t> exponents, int exponent, std::span<const DigitColumns> blocks,
                   DigitInputs& out);

}  // namespace mica
