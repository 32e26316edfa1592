// What a matrix would lose on each of several grids, from a sample of its rows.
#pragma once

#include <cstddef>
#include <vector>

#include "compress/blocks/solver.h"
#include "compress/inform/statistics.h"
#include "format/blocks/block_grid.h"

namespace mica {

// Rows of a matrix that are looked at.
inline constexpr size_t kSampledRows = 32;

// By grid: the loss of storing the matrix there, infinite for those that are not in `candidates`. The share
// of a row's signal, fisher_r w_r diag(H) w_r^T, that is lost in the sample is the matrix's.
//
// Rounded: scales are fitted with 1 / U_jj^2, no error is fed back. Solved: as the matrix would be.
std::vector<double> RoundedLosses(const MeasuredMatrix& matrix, const std::vector<BlockGrid>& grids,
                                  const std::vector<size_t>& candidates);
std::vector<double> SolvedLosses(const MeasuredMatrix& matrix, const std::vector<BlockGrid>& grids,
                                 const std::vector<size_t>& candidates, const BlockSettings& settings);

}  // namespace mica
