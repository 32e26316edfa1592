// What the solver decides before it looks at a weight: the stored order, the blocks of columns and how many
// weights each block loses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "compress/fixed/solver.h"
#include "format/fixed/fixed_matrix.h"
#include "format/mask/sparsity_pattern.h"
#include "ops/feedback/column_plan.h"

namespace mica {

// The order in which columns are best processed: falling energy, in units of the weights that use the channel
// (their energy, [cols]), so that the scale of a channel plays no part.
std::vector<uint32_t> ActivationOrder(const std::vector<double>& energy, const std::vector<double>& use);

// Stored position -> column: widths falling, within a width by `order`. Cells of an n:m mask are consecutive
// columns of the original, of one width, and stay together; columns left over at the end come last in theirs.
std::vector<uint32_t> StoredOrder(const std::vector<uint32_t>& order, const std::vector<uint8_t>& widths,
                                  const MaskKind& mask);

// Throws Error for unknown widths, a group size of 0 or a pattern that has no MaskKind. order: as wanted
// within a width.
ColumnPlan MakePlan(size_t rows, const std::vector<uint32_t>& order, const std::vector<uint8_t>& widths,
                    const FixedSolverSettings& settings);

}  // namespace mica
