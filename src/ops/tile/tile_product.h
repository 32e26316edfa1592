// Matrix products of one tile on the calling thread. The only door to oneDNN: product.cc alone includes it.
#pragma once

#include <cstddef>
#include <memory>

#include "base/half.h"

namespace mica {

// Whether this processor multiplies BF16 natively (AVX-512 BF16, AMX). Elsewhere BF16 operands are widened
// and multiplied in FP32: the same exact products, the same FP32 sums up to their order.
bool NativeBf16();
// Tests force the widening path with false; true goes back to what the processor has. Affects operands packed
// and products begun later.
void AllowNativeBf16(bool allow);

// c[m, n] = a[m, k] b (or c += where accumulate): all dense and row-major. b: [k, n], or [n, k] when
// b_transposed. The sum over k is in an order that depends on the shape only. m, n, k > 0.
void TileProduct(const float* a, const float* b, bool b_transposed, size_t m, size_t n, size_t k,
                 bool accumulate, float* c);
void TileProduct(const BF16* a, const BF16* b, bool b_transposed, size_t m, size_t n, size_t k,
                 bool accumulate, float* c);
// a given as [k, m], read transposed.
void TileProductTransposedA(const float* a, const float* b, size_t m, size_t n, size_t k, bool accumulate,
                            float* c);
void TileProductTransposedA(const BF16* a, const BF16* b, size_t m, size_t n, size_t k, bool accumulate,
                            float* c);

// The operand b of c = a b^T, laid out once for the kernels of this machine. Immutable; any number of threads
// may use it at once.
class PackedOperand {
 public:
  // rows: [n, k] dense.
  PackedOperand(const float* rows, size_t n, size_t k);
  PackedOperand(const BF16* rows, size_t n, size_t k);
  ~PackedOperand();
  PackedOperand(PackedOperand&&) noexcept;
  PackedOperand& operator=(PackedOperand&&) noexcept;

  size_t n() const { return n_; }
  size_t k() const { return k_; }
  size_t bytes() const;  // of the packed form
  // Whether products take BF16 operands (packed from BF16 on a processor with native products).
  bool takes_bf16() const { return takes_bf16_; }

  // c[m, n] = a[m, k] b^T. The overload must match takes_bf16(). A row of c does not depend on the others.
  void Multiply(const float* a, size_t m, float* c) const;
  void Multiply(const BF16* a, size_t m, float* c) const;

 private:
  struct Memory;
  std::unique_ptr<Memory> memory_;
  size_t n_ = 0;
  size_t k_ = 0;
  bool takes_bf16_ = false;
};

// What matrix products have cost since the program began, summed over the threads.
struct ProductCost {
  double seconds = 0.0;
  double flops = 0.0;  // 2 m n k each
};
ProductCost ProductsSoFar();

}  // namespace mica
