// Matrix products of the forward pass: weights laid out once for the fastest kernel this machine has,
// activations streamed past.
#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>

#include "base/half.h"
#include "base/matrix.h"
#include "device/precision.h"

namespace mica {

// kBf16 where the processor multiplies BF16 natively (AVX-512 BF16, AMX), kFp32 elsewhere.
Precision FastestPrecision();

// Tokens in one tile of work: 128 rows of FP32 results by kBlockOutputs stay in a 1 MiB second-level cache
// beside the operands, and products of 128 rows already run at the full rate.
inline constexpr size_t kTileTokens = 128;
// Outputs in one block of prepared weights.
inline constexpr size_t kBlockOutputs = 512;

// The weights of y = x W^T, converted and laid out for the kernels of this machine in blocks of outputs. On a
// processor without native BF16 products a kBf16 matrix keeps values rounded to BF16 and is multiplied in
// FP32. Immutable; may be used by several threads at once.
class PreparedWeights {
 public:
  PreparedWeights();
  // weights: [outputs, inputs] FP32, row-major; read once, not kept. Blocks hold block_outputs rows (the last
  // one what is left).
  PreparedWeights(MatrixView<const float> weights, Precision precision, size_t block_outputs = kBlockOutputs);
  ~PreparedWeights();
  PreparedWeights(PreparedWeights&&) noexcept;
  PreparedWeights& operator=(PreparedWeights&&) noexcept;

  size_t outputs() const;
  size_t inputs() const;
  Precision precision() const;
  size_t bytes() const;  // resident bytes of the prepared form

  size_t blocks() const;
  size_t block_first(size_t block) const;    // first output of a block
  size_t block_outputs(size_t block) const;  // outputs in it
  // y[t, j] = sum_i x[t, i] w[block_first + j, i] for one tile, on the calling thread. x: [tokens <=
  // kTileTokens, inputs]; y: [tokens, block_outputs(block)] dense.
  void MultiplyTile(MatrixView<const float> x, size_t block, float* y) const;
  void MultiplyTile(MatrixView<const BF16> x, size_t block, float* y) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// y[t, o] = sum_i x[t, i] w[o, i] (+ bias[o] when bias is not null). x: [tokens, inputs] FP32 or BF16; y:
// [tokens, outputs] FP32. Work is cut into tiles of fixed size, each multiplied by one thread, so the result
// does not depend on the number of threads.
void Multiply(MatrixView<const float> x, const PreparedWeights& w, const float* bias, MatrixView<float> y);
void Multiply(MatrixView<const BF16> x, const PreparedWeights& w, const float* bias, MatrixView<float> y);
// y += the same.
void MultiplyAdd(MatrixView<const float> x, const PreparedWeights& w, const float* bias, MatrixView<float> y);
void MultiplyAdd(MatrixView<const BF16> x, const PreparedWeights& w, const float* bias, MatrixView<float> y);

// One finished tile: values[i * outputs + j] = the product for token first_token + i and output first_output
// + j of matrix `matrix`.
struct ProductTile {
  size_t matrix = 0;
  size_t first_token = 0, tokens = 0;
  size_t first_output = 0, outputs = 0;
  float* values = nullptr;  // may be overwritten; gone after the call
};
// Multiplies x with several matrices and hands out each tile, in no fixed order, on the thread that made it
// and while it is in its cache. `use` must write only what belongs to its tile.
void MultiplyTiles(MatrixView<const float> x, std::initializer_list<const PreparedWeights*> matrices,
                   const std::function<void(const ProductTile&)>& use);
void MultiplyTiles(MatrixView<const BF16> x, std::initializer_list<const PreparedWeights*> matrices,
                   const std::function<void(const ProductTile&)>& use);
// The same for two matrices of one shape, with the tiles of both at the same place handed out together.
void MultiplyTilePairs(MatrixView<const float> x, const PreparedWeights& first, const PreparedWeights& second,
                       const std::function<void(const ProductTile&, const ProductTile&)>& use);
void MultiplyTilePairs(MatrixView<const BF16> x, const PreparedWeights& first, const PreparedWeights& second,
                       const std::function<void(const ProductTile&, const ProductTile&)>& use);

}  // namespace mica
