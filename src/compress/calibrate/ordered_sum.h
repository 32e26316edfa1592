// Sums over the blocks of tokens that ranks have: added in the order of the blocks, so that they have the same bits on
// any number of ranks.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "compress/calibrate/token_blocks.h"
#include "device/array.h"

namespace mica {

// A sum of matrices. While it grows each rank has some of its rows; all have the whole of it in the end.
class OrderedSum {
 public:
  OrderedSum(const TokenBlocks& blocks, size_t rows, size_t cols, Device device)
      : blocks_(blocks), rows_(rows), cols_(cols), device_(device) {}

  // Adds the matrices of a step, this rank's among them: [rows, cols] FP32, empty where it has no block. Called by all
  // ranks, step after step.
  void Add(Array block);
  // After the last step, by all ranks: [rows, cols] on the device of the blocks, for all of them or for `only` one,
  // empty on the others. Nothing is left here.
  Array Take(std::optional<size_t> only = {});

 private:
  const TokenBlocks blocks_;
  const size_t rows_, cols_;
  const Device device_;
  size_t step_ = 0;
  Array sum_;  // this rank's rows
};

// The same of vectors, which are small: each rank keeps its own until the sum is asked for.
class OrderedValues {
 public:
  explicit OrderedValues(const TokenBlocks& blocks) : blocks_(blocks) {}
  // values: of this rank's block, of one length in all blocks; empty where it has none in this step.
  void Add(std::vector<double> values) { mine_.push_back(std::move(values)); }
  // After the last step, by all ranks.
  const std::vector<double>& Sum();

 private:
  const TokenBlocks blocks_;
  std::vector<std::vector<double>> mine_;  // of each step
  std::vector<double> sum_;
};

}  // namespace mica
