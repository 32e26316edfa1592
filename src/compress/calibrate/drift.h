// How far the inputs of a matrix have moved from those of the original model, and the weights that make up
// for it.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>

#include "base/matrix.h"
#include "compress/calibrate/ordered_sum.h"
#include "compress/calibrate/token_blocks.h"
#include "device/array.h"
#include "device/tensor.h"
#include "ops/linalg/arrange.h"  // CheckFinite

namespace mica {

// E[(a_original - a) x^T] over tokens: how something has moved, seen from the inputs x that the compressed
// layers before produce.
class Drift {
 public:
  // a: [tokens, rows]; x: [tokens, cols], on the device.
  Drift(size_t rows, size_t cols, Device device = Device::Cpu());

  // All of the same tokens and of one type, as in ops/gram/drift_sum.h.
  void Add(ConstTensor original, ConstTensor moved, ConstTensor x);

  Matrix<float> Mean() const;  // [rows, cols]
  size_t tokens() const { return tokens_; }
  Array TakeSum() { return std::move(sum_); }  // on the device; nothing is left here

 private:
  Array sum_;  // [rows, cols] FP32
  size_t tokens_ = 0;
};

// The same over the blocks of all ranks (token_blocks.h), whose sums are added in their order.
class BlockDrift {
 public:
  BlockDrift(size_t rows, size_t cols, Device device, const TokenBlocks& blocks)
      : rows_(rows), cols_(cols), device_(device), sum_(blocks, rows, cols, device), tokens_(blocks) {}

  // Adds tokens of this rank's block; as Drift::Add.
  void Add(ConstTensor original, ConstTensor moved, ConstTensor x);
  // After the tokens of each step, on all ranks. has_block: whether this one had a block, with tokens added or not.
  void EndStep(bool has_block);
  // After the last step, on all ranks; once.
  Array TakeMean();

 private:
  const size_t rows_, cols_;
  const Device device_;
  std::optional<Drift> block_;
  OrderedSum sum_;
  OrderedValues tokens_;
};

// What is known of a matrix's inputs x when it is solved, FP32 on one device.
struct InputMoments {
  ConstTensor h;      // E[x x^T], [cols, cols]
  ConstTensor drift;  // E[(x_original - x) x^T], [cols, cols]; empty without the original model's stream
  // E[(r_original - r) x^T], [rows, cols], r the residual stream that the matrix adds to; empty for matrices
  // that add to none.
  ConstTensor residual;
};

}  // namespace mica
