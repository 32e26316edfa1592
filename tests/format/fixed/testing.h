// Random matrices of coding `fixed` for tests.
#pragma once

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "format/fixed/fixed_matrix.h"
#include "format/mask/mask_kind.h"

namespace mica {

// A matrix with the given (width, columns) runs, a random order and random codes, zeros, scales and mask.
inline FixedMatrix RandomFixed(size_t rows, const std::vector<std::pair<int, size_t>>& runs,
                               size_t group_size, MaskKind mask, unsigned seed, bool identity = false) {
  std::mt19937 random(seed);
  FixedMatrix matrix;
  matrix.rows = rows;
  matrix.group_size = group_size;
  matrix.mask = mask;
  matrix.exponent = static_cast<int>(random() % 9) - 4;
  for (const auto& [bits, count] : runs)
    matrix.widths.insert(matrix.widths.end(), count, static_cast<uint8_t>(bits));
  matrix.cols = matrix.widths.size();
  matrix.order.resize(matrix.cols);
  std::iota(matrix.order.begin(), matrix.order.end(), 0u);
  if (!identity) std::shuffle(matrix.order.begin(), matrix.order.end(), random);

  const bool masked = mask != MaskKind::kNone;
  if (masked) {
    matrix.keep = Matrix<uint8_t>(rows, matrix.cols, uint8_t{0});
    const size_t block = std::max<size_t>(1, mask.cols);
    std::vector<size_t> coded;
    for (size_t p = 0; p < matrix.cols; ++p) {
      if (matrix.widths[p] != 0) coded.push_back(p);
    }
    for (size_t r = 0; r < rows; ++r) {
      for (size_t i = 0; i < coded.size(); i += block) {
        std::vector<uint8_t> keep(std::min(block, coded.size() - i));
        if (keep.size() == block && block > 1) {
          std::fill_n(keep.begin(), mask.kept, uint8_t{1});
          std::shuffle(keep.begin(), keep.end(), random);
        } else {
          for (uint8_t& k : keep) k = random() % 2;
        }
        for (size_t k = 0; k < keep.size(); ++k) matrix.keep(r, coded[i + k]) = keep[k];
      }
    }
  }
  matrix.codes = Matrix<uint16_t>(rows, matrix.cols, uint16_t{0});
  for (size_t r = 0; r < rows; ++r) {
    for (size_t p = 0; p < matrix.cols; ++p) {
      const int bits = matrix.widths[p];
      if (bits == 0 || (masked && matrix.keep(r, p) == 0)) continue;
      matrix.codes(r, p) = bits == 16 ? ToF16(static_cast<float>(random() % 2001) / 1000.0f - 1.0f).bits
                                      : static_cast<uint16_t>(random() % (1u << bits));
    }
  }
  size_t scaled = 0;
  std::vector<uint8_t> group_bits;
  for (const ScaleGroup& group : ScaleGroups(matrix.widths, group_size)) {
    if (group.scale_row < 0) continue;
    ++scaled;
    group_bits.push_back(group.bits);
  }
  matrix.scales = Matrix<ScaleCode>(scaled, rows);
  matrix.zeros = Matrix<uint8_t>(scaled, rows);
  for (size_t g = 0; g < scaled; ++g) {
    for (size_t r = 0; r < rows; ++r) {
      matrix.scales(g, r) = ScaleCode{static_cast<uint8_t>(1 + random() % 255)};
      matrix.zeros(g, r) = static_cast<uint8_t>(random() % (1u << group_bits[g]));
    }
  }
  return matrix;
}

// The same with exponents of columns from -60 to 60.
inline FixedMatrix WithExponents(FixedMatrix matrix) {
  std::mt19937 random(static_cast<uint32_t>(matrix.cols));
  for (size_t p = 0; p < matrix.cols; ++p)
    matrix.col_exponents.push_back(
        static_cast<int8_t>(p % 3 == 0 ? 0 : static_cast<int>(random() % 121) - 60));
  return matrix;
}

}  // namespace mica
