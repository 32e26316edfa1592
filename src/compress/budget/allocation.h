// Bit widths for every column of every matrix under one budget for the whole model (reverse water-filling,
// Lagrangian).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "format/fixed/fixed_matrix.h"
#include "format/mask/sparsity_pattern.h"

namespace mica {

// What the allocator knows of one matrix.
struct MatrixDemand {
  std::string name;
  size_t rows = 0;
  size_t cols = 0;
  // [cols] loss of column j at b > 0 bits is sensitivity[j] * 4^-b (already weighted by the layer's
  // importance).
  std::vector<double> sensitivity;
  // [cols] loss when the column is pruned (width 0). Columns are taken to lose most by pruning where they are
  // most sensitive.
  std::vector<double> zero_loss;
  // [cols] channels of equal group share a width; empty: every channel on its own. The columns of a cell of
  // an n:m mask always do, and are in the group of most of them.
  std::vector<uint32_t> group;
  // [cols] Share of a column's weights that a bitmap prunes. The n:m masks keep n of m whatever it is.
  std::vector<double> pruned_shares;
  MaskKind mask = MaskKind::kNone;
  bool col_exponents = false;  // stored with it
};

enum class BudgetKind {
  kMeanCodeBits,  // mean width of the columns, weighted by rows; pruned weights count as if they had a code
  kBitsPerWeight  // all stored bits over all weights
};

struct AllocationSettings {
  std::vector<uint8_t> options = {2, 3, 4, 6, 8};  // any of 0, 2, 3, 4, 6, 8, 16
  BudgetKind kind = BudgetKind::kMeanCodeBits;
  double budget = 4.0;
  size_t group_size = 128;
};

struct Allocation {
  std::vector<std::vector<uint8_t>> widths;  // [matrices][cols], by original column
  double mean_code_bits = 0;                 // reached
  // All stored bits over weights, as Pack stores what SolveFixed makes of these widths: exact without a
  // mask and with a bitmap of equal shares at group sizes from 128, else at most 0.1 % above (how many
  // weights keep a code in one scale group then depends on weights and order).
  double bits_per_weight = 0;
  double predicted_loss = 0;
};

// What the options can store, in the measure of `kind`: all columns at the least width, and at the most.
struct Reach {
  double least = 0, most = 0;
};
Reach ReachOf(const std::vector<MatrixDemand>& matrices, const AllocationSettings& settings);

// Least predicted loss at the budget, with every stored bit (codes, scales, zeros, masks) at the same price
// whatever the kind of budget, so that no scale group is opened for a few columns that do not pay for it. The
// budget is met within 0.01 and never exceeded, as far as the size of one column allows; with channel groups,
// one group is split between two widths where whole groups cannot meet it. Throws Error saying what is
// possible when the budget lies outside the reach of the options. Deterministic. Time: O(n log n) in the
// number of columns.
Allocation Allocate(const std::vector<MatrixDemand>& matrices, const AllocationSettings& settings);

}  // namespace mica
