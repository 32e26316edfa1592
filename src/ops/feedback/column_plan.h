// In which order and in which blocks the columns of a matrix of coding `fixed` are solved.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "format/fixed/fixed_matrix.h"
#include "format/mask/sparsity_pattern.h"

namespace mica {

// Columns of a block: the unit of the lazy update and of an unstructured mask.
inline constexpr size_t kBlockCols = 128;

// Consecutive stored columns of one width, at most kBlockCols: whole scale groups, or a part of one group
// that is larger.
struct ColumnBlock {
  size_t start = 0;
  size_t end = 0;
  size_t first_group = 0;  // scale groups [first_group, last_group) of the plan; last_group = first_group + 1
                           // for a part of a group
  size_t last_group = 0;
  bool starts_group = true;  // false: the block continues a scale group that began before it
  bool whole_groups = true;  // false: the block is a part of a group
};

struct ColumnPlan {
  std::vector<uint32_t>
      order;  // stored position -> original column: widths descending, then falling H_jj, then rising column
  std::vector<uint8_t> widths;  // by stored position
  std::vector<ScaleGroup> groups;
  std::vector<ColumnBlock> blocks;
  size_t coded = 0;  // columns whose width is not 0; they come first
  MaskKind mask = MaskKind::kNone;
  std::vector<uint64_t> pruned_before;  // [coded + 1] of an unstructured mask; empty without one
};

}  // namespace mica
