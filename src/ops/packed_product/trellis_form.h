// The resident form of coding `entropy` on the processor (format/resident/trellis.h), and products with it:
//
//   y_r = a_r (sum_k s_k sum_{c in block k} q_c level(r, c) + what the width does not hold)
//
// a_r is the row's step; q_c and s_k are the activations times the columns' steps, rounded to 8 bits in
// blocks of 256 columns (int8_inputs.h). That alone is too coarse (docs/experiments.md, "Activations in 8
// bits"): what it leaves is rounded in the same way and multiplied as a token of its own, whose products are
// added. Sums of integers are exact and sums of
// floats have one order, so the bits of y depend on neither tokens beside it, threads nor the instruction
// set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "base/matrix.h"
#include "format/entropy/parts.h"
#include "format/resident/trellis.h"
#include "ops/packed_product/int8_inputs.h"
#include "ops/packed_product/resident_form.h"

namespace mica {

// Whether a matrix has such a form.
bool HasTrellisForm(const EntropyParts& parts);
// Decoded by tiles, by all threads. Throws Error where a stream is damaged. Null where the matrix has
// integers that the form does not hold.
std::unique_ptr<const ResidentForm> TrellisForm(const EntropyParts& parts);
// Bytes that its form is expected to take, told by its tables before anything is decoded.
uint64_t PlannedTrellisBytes(const EntropyParts& parts);

// What follows is for its kernels, tests and benchmarks.

struct TrellisWeights {
  TrellisLayout layout;
  TrellisTables tables{};         // of widths below 8
  Matrix<uint8_t> codes;          // [1, layout.bytes()]
  std::vector<uint16_t> order;    // [rows] stored position -> row; empty: all in their own order
  std::vector<float> row_scale;   // [rows] a, by stored position
  std::vector<int16_t> col_step;  // [cols] of b
  std::vector<uint32_t> taken;   // columns whose codes are all of level 0: their levels are
  Matrix<int16_t> taken_levels;  // [rows, taken], by stored position
  struct Exceptions {
    std::vector<uint16_t> counts;         // [rows of the tile]; empty: none
    std::vector<TrellisException> items;  // of one row after the other
    size_t CountOf(size_t row) const { return counts.empty() ? 0 : counts[row]; }
  };
  std::vector<Exceptions> exceptions;  // [tiles]
  int exception_unit = 1;              // of their differences

  size_t RowAt(size_t position) const { return order.empty() ? position : order[position]; }
  size_t bytes() const;
};
// `choice`: of columns and width. Null where a row has more exceptions than 16 bits count.
std::unique_ptr<const TrellisWeights> MakeTrellisWeights(const EntropyParts& parts,
                                                         const TrellisChoice& choice);

// Activations of such products: those of all tokens, then what rounding left of each.
struct TrellisInputs {
  size_t tokens = 0;   // of both
  Int8Inputs rounded;  // in blocks of kTrellisBlock columns; stride: those of all blocks
  // scale * value, [portions of tokens, cols, tokens of a portion]: 2 tokens, or 16, those beyond the last being
  // zeros. Empty where the weights have nothing beside codes.
  Matrix<float> values;
  size_t value_stride() const { return tokens == 2 ? 2 : 16; }
  // Of column c: [c * value_stride()] behind it, where those of the tokens that follow in its portion stand, too.
  const float* ValuesOf(size_t token) const {
    return values.row(token / value_stride()) + token % value_stride();
  }
};
void RoundInputs(const TrellisWeights& w, MatrixView<const float> x, TrellisInputs& out);

// y[t, p] of stored rows p of one tile, for tokens [first, first + y.rows); y: [tokens, rows of the tile].
using TrellisKernel = void (*)(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                               MatrixView<float> y);
void MultiplyTrellisRef(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                        MatrixView<float> y);
// The best of the machine, and those of all its instruction sets for tests, the best one last.
TrellisKernel BestTrellisKernel();
struct NamedTrellisKernel {
  std::string name;
  TrellisKernel multiply;
};
std::vector<NamedTrellisKernel> TrellisKernelsOfAllTargets();
// Of trellis_avx2_cpu.cc and trellis_vbmi_cpu.cc, there also with tile registers (int8_tiles.h); null where the machine
// has no such instructions.
TrellisKernel Avx2TrellisKernel();
TrellisKernel VbmiTrellisKernel();
TrellisKernel TileTrellisKernel();
// y[t, r] of all rows of a tile = a_r (y[t, r] + what the width does not hold), of all of y's tokens, which begin with
// `first`; by AVX2, bit for bit as MultiplyTrellisRef adds it.
void AddBesideByAvx2(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                     MatrixView<float> y);
// The same by AVX-512, for a token with what rounding left of it or many tokens.
void AddBesideByVbmi(const TrellisWeights& w, size_t tile, const TrellisInputs& x, size_t first,
                     MatrixView<float> y);
// body(std::integral_constant<int, width>()) for a width of kTrellisWidths.
template <typename Body>
void WithTrellisWidth(int width, const Body& body) {
  switch (width) {
    case 2:
      return body(std::integral_constant<int, 2>());
    case 3:
      return body(std::integral_constant<int, 3>());
    case 4:
      return body(std::integral_constant<int, 4>());
    case 5:
      return body(std::integral_constant<int, 5>());
    case 6:
      return body(std::integral_constant<int, 6>());
    default:
      return body(std::integral_constant<int, 8>());
  }
}

}  // namespace mica
