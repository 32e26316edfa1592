// Bit widths for every column of every matrix under one budget for the whole model (reverse water-filling,
// Lagrangian).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "io/packed_matrix.h"

namespace mica {

// What the allocator knows of one matrix.
struct MatrixDemand {
  std::string name;
  size_t rows = 0;
  size_t cols = 0;
  std::vector<double> sensitivity;  // [cols] loss of column j at b bits is sensitivity[j] * 4^-b (already
                                    // weighted by the layer's importance)
  std::vector<double> zero_loss;    // [cols] loss when the column is pruned (width 0)
  std::vector<uint32_t>
      group;              // [cols] channels of equal group share a width; empty: every channel on its own
  double kept_share = 1;  // share of weights that keep a code (1 - sparsity)
  MaskKind mask = MaskKind::kNone;
};

enum class BudgetKind { kMeanCodeBits, kBitsPerWeight };

struct AllocationSettings {
  std::vector<uint8_t> options = {2, 3, 4, 6, 8};  // any of 0, 2, 3, 4, 6, 8, 16
  BudgetKind kind = BudgetKind::kMeanCodeBits;
  double budget = 4.0;  // mean width of columns weighted by rows, or all stored bits over all weights
  size_t group_size = 128;
};

struct Allocation {
  std::vector<std::vector<uint8_t>> widths;  // [matrices][cols], by original column
  double mean_code_bits = 0;                 // reached
  double bits_per_weight = 0;  // all stored bits over weights, exact for PackFixed with these widths
  double predicted_loss = 0;
};

// Minimises the predicted loss; the budget is met within 0.01 and never exceeded (a channel group is split
// between two widths when whole groups cannot meet it). Throws Error saying what is possible when the budget
// lies outside the reach of the options. Deterministic.
Allocation Allocate(const std::vector<MatrixDemand>& matrices, const AllocationSettings& settings);

}  // namespace mica
