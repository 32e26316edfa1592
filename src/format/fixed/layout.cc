#include "format/fixed/layout.h"

#include <numeric>

#include "base/error.h"

namespace mica {

StoredBits FixedStoredBits(size_t rows, const std::vector<uint8_t>& widths, size_t group_size, MaskKind mask,
                           const std::vector<uint64_t>& kept_per_column, bool identity_order,
                           bool col_exponents) {
  MICA_CHECK(kept_per_column.empty() || kept_per_column.size() == widths.size());
  const std::vector<ScaleGroup> groups = ScaleGroups(widths, group_size);
  StoredBits bits = GroupBits(rows, groups, mask, [&](size_t g) {
    const ScaleGroup& group = groups[g];
    if (kept_per_column.empty()) return uint64_t{rows} * group.count;
    const auto first = kept_per_column.begin() + group.start;
    return std::accumulate(first, first + group.count, uint64_t{0});
  });
  for (size_t g = 0; g < groups.size(); ++g) {
    if (g == 0 || groups[g].bits != groups[g - 1].bits) bits.groups += 8 * sizeof(WidthRun);
  }
  if (col_exponents) bits.scales += 8 * widths.size();
  if (!identity_order) bits.order = 8 * widths.size() * OrderBytes(widths.size());
  return bits;
}

}  // namespace mica
