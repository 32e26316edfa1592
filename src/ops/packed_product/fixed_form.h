// The resident form of coding `fixed` on the processor (format/resident/fixed.h), and products with it:
//
//   y_r = sum_k s(r, k) x_k sum_{c in block k} q_c (code(r, c) - zero(r, k))
//
// s is the block's scale of the row; q_c and x_k are the activations, times their columns' powers of two, in
// two digits of 8 bits (int8_inputs.h). Sums of integers are exact, and the blocks are added in their order
// by one fused multiplication each: the bits of y depend on neither tokens beside it, threads nor the
// instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "format/fixed/parts.h"
#include "format/resident/fixed.h"
#include "ops/packed_product/int8_inputs.h"
#include "ops/packed_product/resident_form.h"

namespace mica {

// Of a matrix that HasFixedLayout. Made by tiles, by all threads; keeps nothing of `parts`.
std::unique_ptr<const ResidentForm> FixedForm(const FixedParts& parts);

// What follows is for its kernels, tests and benchmarks.

struct FixedWeights {
  FixedLayout layout;
  int exponent = 0;               // of the matrix
  std::vector<uint16_t> order;    // [cols] stored position -> column; empty: as they are
  std::vector<int8_t> exponents;  // [cols] the matrix's and the stored column's together; empty: the matrix's
  Matrix<uint8_t> bytes;          // of all tiles; more may be read behind each than it has
  std::vector<uint64_t> tile_begin;   // [tiles]
  std::vector<uint32_t> block_begin;  // [tiles, blocks] from the tile's

  const uint8_t* Block(size_t tile, size_t block) const {
    return bytes.data() + tile_begin[tile] + block_begin[tile * layout.blocks.size() + block];
  }
  size_t memory() const;
};
FixedWeights MakeFixedWeights(const FixedParts& parts);
void RoundInputs(const FixedWeights& w, MatrixView<const float> x, DigitInputs& out);

// y[t, i] of rows i of one tile, for tokens [0, y.rows) of x; y: [tokens, kFixedTile], those behind the rows
// of the tile become anything.
using FixedKernel = void (*)(const FixedWeights& w, size_t tile, const DigitInputs& x, MatrixView<float> y);
void MultiplyFixedRef(const FixedWeights& w, size_t tile, const DigitInputs& x, MatrixView<float> y);
// The best of the machine, and those of all its instruction sets for tests, the best one last.
FixedKernel BestFixedKernel();
struct NamedFixedKernel {
  std::string name;
  FixedKernel multiply;
};
std::vector<NamedFixedKernel> FixedKernelsOfAllTargets();

}  // namespace mica
