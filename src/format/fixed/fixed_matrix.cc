#include "format/fixed/fixed_matrix.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace mica {

bool IsKnownWidth(unsigned bits) {
  return bits == 0 || bits == 2 || bits == 3 || bits == 4 || bits == 6 || bits == 8 || bits == 16;
}

std::vector<ScaleGroup> ScaleGroups(const std::vector<uint8_t>& widths, size_t group_size) {
  if (group_size == 0) Fail("group size is 0, expected at least 1");
  std::vector<ScaleGroup> groups;
  bool seen[17] = {};
  int32_t scale_rows = 0;
  for (size_t start = 0; start < widths.size();) {
    const uint8_t bits = widths[start];
    if (!IsKnownWidth(bits)) {
      Fail("stored column {} has width {}, expected 0, 2, 3, 4, 6, 8 or 16", start, bits);
    }
    if (seen[bits]) Fail("stored column {}: columns of width {} are not contiguous", start, bits);
    seen[bits] = true;
    size_t end = start;
    while (end < widths.size() && widths[end] == bits) ++end;
    for (; start < end; start += groups.back().count) {
      ScaleGroup group;
      group.start = static_cast<uint32_t>(start);
      group.count = static_cast<uint32_t>(std::min(group_size, end - start));
      group.bits = bits;
      if (bits != 0 && bits != 16) group.scale_row = scale_rows++;
      groups.push_back(group);
    }
  }
  return groups;
}

size_t ScaleGroupCount(const std::vector<ScaleGroup>& groups) {
  return static_cast<size_t>(
      std::ranges::count_if(groups, [](const ScaleGroup& group) { return group.scale_row >= 0; }));
}

std::vector<float> ColumnUnits(const std::vector<int8_t>& col_exponents) {
  std::vector<float> units;
  for (const int8_t exponent : col_exponents) units.push_back(std::ldexp(1.0f, exponent));
  return units;
}

void DecodeRow(const FixedMatrix& matrix, const std::vector<ScaleGroup>& groups, size_t r, float* weights) {
  const bool masked = matrix.mask != MaskKind::kNone;
  const float unit = std::ldexp(1.0f, matrix.exponent);
  const std::vector<float> of_column = ColumnUnits(matrix.col_exponents);
  for (const ScaleGroup& group : groups) {
    const bool scaled = group.scale_row >= 0;
    const int zero = scaled ? matrix.zeros(static_cast<size_t>(group.scale_row), r) : 0;
    const float scale =
        scaled ? ToFloat(matrix.scales(static_cast<size_t>(group.scale_row), r)) * unit : 0.0f;
    for (size_t p = group.start; p < group.start + group.count; ++p) {
      const uint16_t code = matrix.codes(r, p);
      float weight = 0.0f;
      if (group.bits != 0 && (!masked || matrix.keep(r, p) != 0)) {
        weight = scaled ? static_cast<float>(int{code} - zero) * scale : ToFloat(F16{code}) * unit;
      }
      weights[matrix.order[p]] = of_column.empty() ? weight : weight * of_column[p];
    }
  }
}

}  // namespace mica
