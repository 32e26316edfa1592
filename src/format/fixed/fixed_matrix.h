// One compressed matrix of coding `fixed` in memory: the integers that are stored and what turns them back
// into weights. docs/format.md describes the same on disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/half.h"
#include "base/matrix.h"
#include "format/fixed/scale_code.h"
#include "format/mask/mask_kind.h"
#include "format/stored_bits.h"

namespace mica {

// Of a matrix, and of a matrix and a column together: no scale or weight over- or underflows.
inline constexpr int kMaxExponent = 100;

// What is stored of a matrix beside its tensors.
struct FixedFacts {
  size_t rows = 0;
  size_t cols = 0;
  size_t group_size = 128;
  int exponent = 0;  // within +-kMaxExponent
  MaskKind mask = MaskKind::kNone;
};

// Every column has one of the widths 0, 2, 3, 4, 6, 8 (or 16: FP16 values, pruning only). Columns of equal
// width are contiguous in stored order and share scales in groups of at most `group_size` consecutive stored
// columns; a group never spans two widths.
//   weight(r, order[p]) = keep(r, p) ? (code(r, p) - zero(g, r)) * scale(g, r) * 2^(exponent + e(p)) : 0,  g
//   the scale group of stored column p, e(p) its own exponent,
// in FP32, which holds it exactly; a weight of a column of width 0 is 0, one of width 16 is its FP16 value
// times 2^(exponent + e(p)).
//
// All of a matrix but its integers.
struct FixedFrame : FixedFacts {
  std::vector<uint32_t> order;  // [cols] stored position -> original column
  std::vector<uint8_t> widths;  // [cols] bits of the column at each stored position
  // [cols] by stored position, exponent + e within +-kMaxExponent; empty: all 0. Lets a column that is larger
  // or smaller than the others of its scale group by far share their scale.
  std::vector<int8_t> col_exponents;
};

struct FixedMatrix : FixedFrame {
  Matrix<uint16_t>
      codes;  // [rows, cols] in stored order: below 2^width; FP16 bits where width is 16; 0 where pruned
  Matrix<uint8_t>
      keep;  // [rows, cols] 1 kept, 0 pruned; empty when mask is kNone; not looked at where width is 0
  Matrix<ScaleCode> scales;  // [scale groups, rows]; groups of width 0 and 16 have none
  Matrix<uint8_t> zeros;     // [scale groups, rows] below 2^width
};

// Consecutive stored columns of one width that share a scale.
struct ScaleGroup {
  uint32_t start = 0;  // first stored column
  uint32_t count = 0;  // at most group_size
  uint8_t bits = 0;
  int32_t scale_row = -1;  // row of `scales` and `zeros`; -1 for widths 0 and 16
};
// The scale groups that follow from widths and group size; throws Error if equal widths are not contiguous or
// a width is unknown.
std::vector<ScaleGroup> ScaleGroups(const std::vector<uint8_t>& widths, size_t group_size);
// Those that have scales and zeros.
size_t ScaleGroupCount(const std::vector<ScaleGroup>& groups);
// 0, 2, 3, 4, 6, 8 or 16.
bool IsKnownWidth(unsigned bits);

// 2^e of each column; empty when all are 1.
std::vector<float> ColumnUnits(const std::vector<int8_t>& col_exponents);

// weights ([cols], original column order) = row r; groups: ScaleGroups of the matrix.
void DecodeRow(const FixedMatrix& matrix, const std::vector<ScaleGroup>& groups, size_t r, float* weights);

}  // namespace mica
