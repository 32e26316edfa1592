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

// Throws Error for unknown widths, a group size of 0 or a pattern that has no MaskKind. diagonal: [cols] H_jj
// by original column.
ColumnPlan MakePlan(size_t rows, const std::vector<float>& diagonal, const std::vector<uint8_t>& widths,
                    const FixedSolverSettings& settings);

}  // namespace mica
