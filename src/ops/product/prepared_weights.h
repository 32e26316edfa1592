// The weights of a linear layer, laid out once for the fastest kernel this machine has.
#pragma once

#include <cstddef>
#include <memory>

#include "base/dtype.h"
#include "base/half.h"
#include "base/matrix.h"
#include "device/array.h"
#include "device/precision.h"
#include "device/tensor.h"

namespace mica {

// kBf16 where the device multiplies BF16 natively (CUDA; AVX-512 BF16, AMX), kFp32 elsewhere.
Precision FastestPrecision(Device device = Device::Cpu());

// Tokens in one tile of work: 128 rows of FP32 results by kBlockOutputs stay in a 1 MiB second-level cache
// beside the operands, and products of 128 rows already run at the full rate.
inline constexpr size_t kTileTokens = 128;
// Outputs in one block of prepared weights.
inline constexpr size_t kBlockOutputs = 512;

// The weights of y = x W^T, converted and laid out for the kernels of the device that they are on: on a
// processor in blocks of outputs, on a CUDA device as they are. On a processor without native BF16 products a
// BF16 matrix keeps values rounded to BF16 and is multiplied in FP32. Immutable; may be used by several
// threads at once.
class PreparedWeights {
 public:
  PreparedWeights();
  // weights: [outputs, inputs], row-major, FP32 on the processor and of any floating-point type on a CUDA
  // device; read once, not kept. `operands`, FP32 or BF16, is the type of both factors of its products.
  // Blocks hold block_outputs rows (the last one what is left).
  PreparedWeights(ConstTensor weights, DType operands, size_t block_outputs = kBlockOutputs);
  // Takes weights that are on a CUDA device in the type of the operands.
  explicit PreparedWeights(Array weights);
  ~PreparedWeights();
  PreparedWeights(PreparedWeights&&) noexcept;
  PreparedWeights& operator=(PreparedWeights&&) noexcept;

  size_t outputs() const;
  size_t inputs() const;
  DType operands() const;
  size_t bytes() const;  // resident bytes of the prepared form
  // Bytes of one value in the prepared form on a device of this machine.
  static size_t ValueBytes(DType operands, Device device = Device::Cpu());

  // On a CUDA device: [outputs, inputs] of type `operands`.
  ConstTensor dense() const;

  // The rest is for the processor.
  size_t blocks() const;
  size_t block_first(size_t block) const;    // first output of a block
  size_t block_outputs(size_t block) const;  // outputs in it
  // y[t, j] = sum_i x[t, i] w[block_first + j, i] for one tile, on the calling thread. x: [tokens <=
  // kTileTokens, inputs] of type `operands`; y: [tokens, block_outputs(block)] dense.
  void MultiplyTile(MatrixView<const float> x, size_t block, float* y) const;
  void MultiplyTile(MatrixView<const BF16> x, size_t block, float* y) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mica
