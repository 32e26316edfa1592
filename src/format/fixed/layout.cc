#include "format/fixed/layout.h"

#include <numeric>

#include "base/error.h"
#include "format/mask/mask_rows.h"
#include "format/mask/sparsity_pattern.h"
#include "format/stored_bits.h"

namespace mica {

StoredBits FixedStoredBits(size_t rows, const std::vector<uint8_t>& widths, size_t group_size, MaskKind mask,
                           const std::vector<uint64_t>& kept_per_column, bool identity_order) {
  MICA_CHECK(kept_per_column.empty() || kept_per_column.size() == widths.size());
  StoredBits bits;
  size_t coded_cols = 0;
  uint32_t last_width = ~0u;
  for (const ScaleGroup& group : ScaleGroups(widths, group_size)) {
    if (group.bits != last_width) bits.groups += 8 * sizeof(GroupRun);
    last_width = group.bits;
    if (group.bits == 0) continue;
    coded_cols += group.count;
    uint64_t kept = uint64_t{rows} * group.count;
    if (!kept_per_column.empty()) {
      const auto first = kept_per_column.begin() + group.start;
      kept = std::accumulate(first, first + group.count, uint64_t{0});
    }
    const uint64_t code_bits = kept * group.bits;
    bits.codes += code_bits;
    bits.padding += 8 * AlignGroup((code_bits + 7) / 8) - code_bits;
    if (group.scale_row < 0) continue;
    bits.scales += uint64_t{rows} * kScaleBits;
    const uint64_t zero_bits = uint64_t{rows} * group.bits;
    bits.zeros += zero_bits;
    bits.padding += (8 - zero_bits % 8) % 8;
  }
  const uint64_t mask_bits = MaskRowBits(mask, coded_cols);
  bits.mask = rows * mask_bits;
  bits.padding += rows * ((8 - mask_bits % 8) % 8);
  if (!identity_order) bits.order = widths.size() * (widths.size() <= 65536 ? 16 : 32);
  return bits;
}

}  // namespace mica
