// How the pruning scores of a matrix are spread.
#pragma once

#include <cstddef>
#include <vector>

#include "base/matrix.h"

namespace mica {

// Bins of a histogram of scores, by log2 of a score over the mean of its column.
inline constexpr int kScoreBinsPerOctave = 4;
inline constexpr int kFirstScoreOctave = -32, kLastScoreOctave = 16;
inline constexpr size_t kScoreBins =
    static_cast<size_t>(kLastScoreOctave - kFirstScoreOctave) * kScoreBinsPerOctave;

// [rows] What the squared weights of a row count in pruning scores: its Fisher information, damped by the
// mean, with mean 1.
std::vector<float> RowImportance(const std::vector<double>& fisher);

// Histogram of importance_r w_rj^2 over its mean in column j: shares of all weights by log2 of that ratio.
// importance: [rows]. Weights of columns that are all zero count as the smallest.
std::vector<double> ScoreShares(MatrixView<const float> w, const std::vector<float>& importance);

}  // namespace mica
