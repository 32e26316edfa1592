// Where an unstructured mask prunes: one threshold on the pruning score for the whole model, so that each
// column of each matrix loses what it can spare and the mean is the share asked for. Scores of a matrix are
// taken to be spread alike in all its columns, around each column's mean: one histogram a matrix, collected
// with the statistics, stands for all its weights.
#pragma once

#include <string>
#include <vector>

#include "base/matrix.h"

namespace mica {

// [rows] What the squared weights of a row count in pruning scores: its Fisher information, damped by the
// mean, with mean 1.
std::vector<float> RowImportance(const std::vector<double>& fisher);

// Histogram of importance_r w_rj^2 over its mean in column j: shares of all weights by log2 of that ratio.
// importance: [rows]. Weights of columns that are all zero count as the smallest.
std::vector<double> ScoreShares(MatrixView<const float> w, const std::vector<float>& importance);

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

}  // namespace mica
