// Where the parts of a matrix of coding `fixed` stand in its stored tensors (docs/format.md), and how many
// bits they take.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/fixed/fixed_matrix.h"
#include "format/mask/mask_kind.h"
#include "format/stored_bits.h"

namespace mica {

// The code stream of every scale group starts at a multiple of this: 128 columns of any width are then rows
// of whole 16-byte vectors.
inline constexpr uint64_t kGroupAlignment = 16;
constexpr uint64_t AlignGroup(uint64_t bytes) {
  return (bytes + kGroupAlignment - 1) / kGroupAlignment * kGroupAlignment;
}
// Rows that are decoded together; where a block begins in masked code streams is counted once.
inline constexpr size_t kBlockRows = 64;

// One row of L.runs.
struct WidthRun {
  uint32_t start;  // first stored column
  uint32_t bits;
};
static_assert(sizeof(WidthRun) == 8);
// The order of the columns is stored in 16 bits where they suffice.
constexpr size_t OrderBytes(size_t cols) { return cols <= 65536 ? sizeof(uint16_t) : sizeof(uint32_t); }
// Without a mask, a scale group of 128 columns and 64 rows takes 1024 bytes a bit of width, aligned.
static_assert(AlignGroup(kBlockRows * 128 * 3 / 8) == 3 * 1024);

// The code stream of every scale group, the streams of zeros, scales and the mask; without order and runs.
// groups: ScaleGroup or what begins with one; kept(g): weights of group g that have a code.
template <typename Group, typename Kept>
StoredBits GroupBits(size_t rows, const std::vector<Group>& groups, MaskKind mask, const Kept& kept) {
  StoredBits bits;
  size_t coded_cols = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    const ScaleGroup& group = groups[g];
    if (group.bits == 0) continue;
    coded_cols += group.count;
    const uint64_t code_bits = uint64_t{kept(g)} * group.bits;
    bits.codes += code_bits;
    bits.padding += 8 * AlignGroup((code_bits + 7) / 8) - code_bits;
    if (group.scale_row < 0) continue;
    bits.scales += uint64_t{rows} * kScaleBits;
    const uint64_t zero_bits = uint64_t{rows} * group.bits;
    bits.zeros += zero_bits;
    bits.padding += (8 - zero_bits % 8) % 8;
  }
  const uint64_t mask_bits = mask.RowBits(coded_cols);
  bits.mask = rows * mask_bits;
  bits.padding += rows * ((8 - mask_bits % 8) % 8);
  return bits;
}

// Exactly the bits a packed matrix stores, without making them: for the allocator. `widths` and
// `kept_per_column` (weights that have a code) are by stored column; kept_per_column is empty when every
// weight is kept.
StoredBits FixedStoredBits(size_t rows, const std::vector<uint8_t>& widths, size_t group_size, MaskKind mask,
                           const std::vector<uint64_t>& kept_per_column, bool identity_order,
                           bool col_exponents = false);

}  // namespace mica
