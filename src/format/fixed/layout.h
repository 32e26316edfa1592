// Where the parts of a matrix of coding `fixed` stand in its stored tensors (docs/format.md), and how many
// bits they take.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/fixed/fixed_matrix.h"
#include "format/mask/sparsity_pattern.h"
#include "format/stored_bits.h"

namespace mica {

// The code stream of every scale group starts at a multiple of this: 128 columns of any width are then rows
// of whole 16-byte vectors.
inline constexpr uint64_t kGroupAlignment = 16;
constexpr uint64_t AlignGroup(uint64_t bytes) {
  return (bytes + kGroupAlignment - 1) / kGroupAlignment * kGroupAlignment;
}
// Rows whose position in masked code streams the reader remembers.
inline constexpr size_t kBlockRows = 64;

// One row of L.groups.
struct GroupRun {
  uint32_t start;  // first stored column
  uint32_t bits;
};
static_assert(sizeof(GroupRun) == 8);
// Without a mask, a scale group of 128 columns and 64 rows takes 1024 bytes a bit of width, aligned.
static_assert(AlignGroup(kBlockRows * 128 * 3 / 8) == 3 * 1024);

// Exactly the bits a packed matrix stores, without making them: for the allocator. `widths` and
// `kept_per_column` (weights that have a code) are by stored column; kept_per_column is empty when every
// weight is kept.
StoredBits FixedStoredBits(size_t rows, const std::vector<uint8_t>& widths, size_t group_size, MaskKind mask,
                           const std::vector<uint64_t>& kept_per_column, bool identity_order);

}  // namespace mica
