// Second moments and means of a linear layer's inputs, H = E[x x^T], accumulated over calibration tokens.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "compress/calibrate/ordered_sum.h"
#include "compress/calibrate/token_blocks.h"
#include "device/array.h"
#include "device/tensor.h"
#include "ops/gram/gram.h"

namespace mica {

// Products of one block of tokens are summed in FP32, blocks in FP64 (ops/gram/gram.h): the result changes by
// less than 1e-6 (relative to the largest diagonal entry) when the tokens come in another order or other
// portions, and not at all with the number of threads. BF16 inputs without weights are multiplied exactly.
// Memory: 4 cols^2 bytes of the device.
class Moments {
 public:
  explicit Moments(size_t cols, Device device = Device::Cpu()) : gram_(cols, device) {}

  // Adds tokens [tokens, cols] FP32 or BF16 on the device; `weights` (one a token, >= 0) or empty for 1 each.
  // With weights, also equal ones, rows are scaled by sqrt(weight) and multiplied in FP32, never rounded to
  // BF16: about twice the time of BF16. Throws Error when an input is NaN, infinite or beyond 2^59 (naming
  // the first such channel, how many of its values and how many channels), or when a weight is negative or
  // not finite; the object is then of no further use. On a CUDA device the first of these Errors comes from
  // SecondMoment and Mean.
  void Add(ConstTensor x, std::span<const float> weights = {});

  size_t cols() const { return gram_.cols(); }
  double weight() const { return weight_; }  // sum of the tokens' weights
  size_t tokens() const { return tokens_; }
  // H = sum_t w_t x_t x_t^T / sum_t w_t, [cols, cols], both triangles. Throws Error when the weight is 0.
  Matrix<float> SecondMoment() const;
  void SecondMoment(Tensor out) const;  // FP32 on the processor or the device
  // sum_t w_t x_t / sum_t w_t, [cols]. Throws Error when the weight is 0.
  std::vector<double> Mean() const;
  // The sums before they are divided: of w_t x_t x_t^T, FP32 on the device, as Gram::TakeSums, and of w_t x_t.
  void TakeSums(Tensor out) { gram_.TakeSums(out); }
  std::vector<double> ColumnSums() const { return gram_.ColumnSums(); }

 private:
  double Normaliser() const;

  Gram gram_;
  size_t tokens_ = 0;
  double weight_ = 0;
};

// The same over the blocks of all ranks (token_blocks.h), whose sums are added in their order.
class BlockMoments {
 public:
  BlockMoments(size_t cols, Device device, const TokenBlocks& blocks);

  // Adds tokens of this rank's block; as Moments::Add.
  void Add(ConstTensor x, std::span<const float> weights = {});
  // After the tokens of each step, on all ranks, whether they had any or not.
  void EndStep();

  // After the last step, by all ranks. H, [cols, cols] FP32 on the device, for all of them or for `only` one, empty on
  // the others; once. Throws Error when the weight is 0, and what Moments::Add may.
  Array TakeSecondMoment(std::optional<size_t> only = {});
  std::vector<double> Mean() const;  // behind TakeSecondMoment

 private:
  double Normaliser() const;

  // Of all blocks: [cols + 2] of w_t x_t; weights; tokens. Waits for this rank's.
  const std::vector<double>& Small() const;

  const size_t cols_;
  const Device device_;
  std::optional<Moments> block_;
  OrderedSum sum_;
  mutable std::vector<std::optional<Moments>> ended_;  // of each step, without sums of products
  mutable OrderedValues small_;
};

// x [tokens, cols] with each token times the square root of its weight, in `scaled`, rounded to the type of x;
// x itself without weights.
ConstTensor Weighted(ConstTensor x, std::span<const float> weights, Array& scaled);

}  // namespace mica
