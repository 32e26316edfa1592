// What neighbouring columns of one row may hold together where weights are stored in blocks: the types of
// GGUF, and integers with a scale for each group of columns (compressed-tensors). Columns stand in their
// natural order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "format/gguf/types.h"

namespace mica {

enum class ScaleType { kF16, kBF16 };

// How a code becomes a level.
enum class LevelKind {
  kUniform,   // level_low + code
  kTable,     // table[code], 16 of them, rising
  kCodebook,  // a code names the magnitudes of `vector_cols` columns, which have signs beside it
};

// A block of `block_cols` columns has d, and dmin where there are offsets; each group of `group_cols` columns
// in it has the integers s and m. A weight is
//
//   d (scale_base + scale_step s) level - dmin m,  s in [0, scale_high], m in [0, offset_high].
//
// Without an integer (scale_high 0) the factor of d is 1; with signed_offset m is 1, and dmin of either sign.
struct BlockGrid {
  std::string name;       // "Q4_K", "int4 g128"
  size_t block_cols = 0;  // columns that share d and dmin
  size_t group_cols = 0;  // columns that share s and m; block_cols where there are none
  ScaleType scale_type = ScaleType::kF16;
  float scale_base = 1, scale_step = 0;
  int scale_high = 0;
  int offset_high = 0;  // 0: no offset, or a signed one
  bool signed_offset = false;
  bool negative_scale = false;  // whether d may be negative
  LevelKind levels = LevelKind::kUniform;
  int level_low = 0, level_high = 0;  // uniform
  std::array<float, 16> table{};
  size_t vector_cols = 1;              // of a codebook's vectors, 4 or 8
  const uint16_t* codebook = nullptr;  // vectors, level_bits a column, the first lowest
  size_t vectors = 0;
  int level_bits = 0;
  std::array<float, 8> magnitudes{};  // of a codebook's levels
  bool even_signs = false;            // of eight columns, an even number is negative
  double bits_per_weight = 0;

  bool has_integers() const { return scale_high > 0; }
  bool has_offset() const { return offset_high > 0 || signed_offset; }
  size_t groups() const { return block_cols / group_cols; }
};

// Whether there is a grid for the type: Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS, IQ2_XXS to IQ3_S.
bool CanSolve(GgmlType type);
const BlockGrid& GridOf(GgmlType type);

// Signed integers of 2 to 8 bits times a scale for each `group` columns of a row (the number of columns: one
// a row), as compressed-tensors has them.
BlockGrid SymmetricGrid(int bits, size_t group, ScaleType scale_type);

}  // namespace mica
