// Matrix products of the forward pass: weights laid out once for the fastest kernel this machine has,
// activations streamed past.
#pragma once

#include <cstddef>
#include <memory>

#include "base/half.h"
#include "base/matrix.h"

namespace mica {

enum class Precision {
  kFp32,  // FP32 operands and sums
  kBf16,  // operands rounded to BF16, exact products, FP32 sums
};
const char* PrecisionName(Precision precision);  // "fp32", "bf16"

// kBf16 where the processor multiplies BF16 natively (AVX-512 BF16, AMX, Arm BF16), kFp32 elsewhere.
Precision FastestPrecision();

// The weights of y = x W^T, converted and laid out for the kernels of this machine. On a processor without
// native BF16 products a kBf16 matrix keeps values rounded to BF16 and is multiplied in FP32. Immutable; may
// be used by several threads at once.
class PreparedWeights {
 public:
  PreparedWeights();
  // weights: [outputs, inputs] FP32, row-major; read once, not kept.
  PreparedWeights(MatrixView<const float> weights, Precision precision);
  ~PreparedWeights();
  PreparedWeights(PreparedWeights&&) noexcept;
  PreparedWeights& operator=(PreparedWeights&&) noexcept;

  size_t outputs() const;
  size_t inputs() const;
  Precision precision() const;
  size_t bytes() const;  // resident bytes of the prepared form

  struct State;
  const State& state() const { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

// y[t, o] = sum_i x[t, i] w[o, i] (+ bias[o] when bias is not null). x: [tokens, inputs] FP32 or BF16; y:
// [tokens, outputs] FP32. Work is cut into fixed blocks of tokens, each multiplied by one thread, so the
// result does not depend on the number of threads.
void Multiply(MatrixView<const float> x, const PreparedWeights& w, const float* bias, MatrixView<float> y);
void Multiply(MatrixView<const BF16> x, const PreparedWeights& w, const float* bias, MatrixView<float> y);

}  // namespace mica
