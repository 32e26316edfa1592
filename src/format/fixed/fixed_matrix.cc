#include "format/fixed/fixed_matrix.h"

#include <algorithm>
#include <cmath>

#include "base/threads.h"
#include "format/mask/sparsity_pattern.h"

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

void Decode(const FixedMatrix& matrix, MatrixView<float> out) {
  MICA_CHECK(out.rows == matrix.rows && out.cols == matrix.cols);
  MICA_CHECK(matrix.order.size() == matrix.cols && matrix.widths.size() == matrix.cols);
  const std::vector<ScaleGroup> groups = ScaleGroups(matrix.widths, matrix.group_size);
  const bool masked = matrix.mask != MaskKind::kNone;
  const float unit = std::ldexp(1.0f, matrix.exponent);
  ParallelFor(matrix.rows, [&](size_t r) {
    float* target = out.row(r);
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
        target[matrix.order[p]] = weight;
      }
    }
  });
}

}  // namespace mica
