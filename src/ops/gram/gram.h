// The Gram matrix X^T X of a stream of tokens: the product behind second moments.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/matrix.h"
#include "device/tensor.h"
#include "ops/gram/device_gram.h"

namespace mica {

// sum_t w_t x_t x_t^T and sum_t w_t x_t over the tokens added so far. Tokens are taken in blocks of
// kBlockTokens; a block's products are exact for BF16 inputs without weights and rounded to FP32 otherwise,
// its sums are FP32, and blocks are summed in FP64. Only tiles on and below the diagonal are computed and
// kept, so memory is 4 cols^2 bytes plus one packed copy of at most kChunkTokens tokens. BF16 products where
// the processor has them, FP32 elsewhere (same values up to the FP32 sums). Every tile has one owner: results
// do not depend on the number of threads.
//
// On a CUDA device blocks are of 2048 tokens, summed in FP32 by chains of 64, which has the same error; 4
// cols^2 bytes of its memory, and where weights or rows that are not aligned ask for it one packed copy of
// 8192 tokens. BF16 without weights of 1024 columns and more is summed by blocks of 2048 tokens with an error
// below 1e-5 of sqrt(Sum(i, i) Sum(j, j)), and takes 8 cols^2 bytes.
class Gram {
 public:
  // Edge of a tile: the FP32 tile, the FP64 tile and both panels stay in the L2 cache.
  static constexpr size_t kTile = 128;
  // Keeps the error of an FP32 sum of squares near 2e-7 (tests/compress/moments_test.cc holds it below 1e-6).
  static constexpr size_t kBlockTokens = 256;
  static constexpr size_t kChunkTokens = 2048;

  explicit Gram(size_t cols, Device device = Device::Cpu());

  // Adds tokens x, whose blocks begin with their first: [tokens, cols] FP32 or BF16 on the device. weights:
  // [tokens], finite and >= 0, or empty for 1 each; with weights, rows are scaled by sqrt(w_t) in FP32 and
  // multiplied in FP32 (about twice the time of BF16).
  // Throws Error naming the channel when values are NaN, infinite or beyond 2^59 (their products would
  // overflow), or when a weight is not finite or negative; the sums are then of no further use. On a CUDA
  // device, which is not waited for here, such values are found by the functions below, which throw that
  // Error.
  void Add(ConstTensor x, std::span<const float> weights = {});
  // The same with weights [1, tokens] FP32 on any device; waits for them.
  void AddWeighted(ConstTensor x, ConstTensor weights);

  size_t cols() const { return cols_; }
  Device device() const { return device_; }
  double Sum(size_t i, size_t j) const;    // sum_t w_t x_ti x_tj
  std::vector<double> ColumnSums() const;  // [cols] sum_t w_t x_t
  // out[i, j] = factor * Sum(i, j), both triangles. out: [cols, cols] FP32 on the processor or the device.
  void CopyScaled(double factor, Tensor out) const;
  // out[i, j] = Sum(i, j), as CopyScaled on the device of the sums, whose memory goes back: nothing but ColumnSums may be
  // asked for afterwards. On a CUDA device it does not wait, and values that cannot be summed are found by
  // ColumnSums.
  void TakeSums(Tensor out);

 private:
  template <typename T>
  void AddTokens(MatrixView<const T> x, std::span<const float> weights);
  template <typename T, typename Packed>
  void AddChunk(MatrixView<const T> x, const float* row_scale, const float* weight);
  const double* Tile(size_t i, size_t j) const { return sums_.row(i * (i + 1) / 2 + j); }

  size_t cols_;
  Device device_;
  std::unique_ptr<DeviceGram> there_;  // instead of all that follows, on other devices than the processor
  size_t tiles_ = 0;                   // tiles an edge
  // [tiles (tiles + 1) / 2, kTile * kTile]: tile (i, j), j <= i, at row i (i + 1) / 2 + j.
  Matrix<double> sums_;
  std::vector<double> column_sums_;
};

}  // namespace mica
