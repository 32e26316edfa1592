// Where an unstructured mask prunes: one threshold on the pruning score for the whole model, so that each
// column of each matrix loses what it can spare and the mean is the share asked for. Scores of a matrix are
// taken to be spread alike in all its columns, around each column's mean: one histogram a matrix, collected
// with the statistics, stands for all its weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix.h"
#include "compress/curvature/score_histogram.h"

namespace mica {

// One matrix.
struct PruningDemand {
  size_t rows = 0;
  std::vector<double> column_score;  // [cols] mean pruning score of a column's weights, in units of the
                                     // model's loss
  std::vector<double> score_shares;  // as ScoreShares gives them; empty: not known
};

// [matrices][cols] Share of each column's weights below the threshold at which the mean over all weights is
// `rate`, 0 <= rate < 1. Matrices without score_shares: `rate` in each column of all.
std::vector<std::vector<double>> PrunedShares(const std::vector<PruningDemand>& matrices, double rate);

// [coded + 1] Weights that an unstructured mask prunes in the columns before each stored position. shares:
// [cols] of each stored column's weights; the first `coded` columns have a width > 0. The last entry is
// rows * (sum of shares), rounded up, less the columns of width 0, never negative; in between it rises with
// the shares. The mask of a run of one width prunes exactly the difference between its ends.
std::vector<uint64_t> PrunedBefore(size_t rows, const std::vector<double>& shares, size_t coded);

}  // namespace mica
