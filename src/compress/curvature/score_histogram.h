// How the pruning scores of a matrix are spread.
#pragma once

#include <vector>

#include "device/tensor.h"
#include "ops/census/census.h"

namespace mica {

// [rows] What the squared weights of a row count in pruning scores: its Fisher information, damped by the
// mean, with mean 1.
std::vector<float> RowImportance(const std::vector<double>& fisher);

// [kScoreBins] Histogram of importance_r w_rj^2 over its mean in column j: shares of all weights by log2 of
// that ratio (ops/census/census.h). w: [rows, cols] FP32 on any device; importance: [rows]. Weights of
// columns that are all zero count as the smallest.
std::vector<double> ScoreShares(ConstTensor w, const std::vector<float>& importance);

}  // namespace mica
