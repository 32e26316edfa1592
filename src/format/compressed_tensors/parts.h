// A matrix as compressed-tensors stores it ("pack-quantized"): integers, and a scale for each group of
// columns of a row. A weight is
//
//   scale (u - z),  u the stored code, z = 2^(bits - 1) unless there are zero points.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/dtype.h"
#include "base/matrix.h"
#include "format/compressed_tensors/packing.h"
#include "format/stored_bits.h"

namespace mica {

struct CompressedTensorsFacts {
  size_t rows = 0, cols = 0;
  int bits = 4;                     // 2 to 8
  size_t group = 128;               // columns that share a scale, a divisor of cols
  DType scale_dtype = DType::kF16;  // or BF16; other programs' F32
  size_t groups() const { return cols / group; }
};

// "int4 g128", as the grids of format/blocks/block_grid.h are called.
std::string TypeNameOf(const CompressedTensorsFacts& facts);

struct CompressedTensorsParts : CompressedTensorsFacts {
  std::string name;  // of the matrix, for messages
  CodePacking packing = CodePacking::kDense, zero_packing = CodePacking::kDense;
  // Not owned, possibly unaligned.
  std::span<const std::byte> words;     // [rows, words of cols codes] I32
  std::span<const std::byte> scales;    // [rows, groups]
  std::span<const std::byte> zeros;     // [words of rows codes, groups] I32: packed along rows; empty: none
  std::span<const std::byte> group_of;  // [cols] I32 below groups(); empty: columns in their order
  std::span<const std::byte> shape;     // [2] I64, which says rows and cols again
};

// The shape counts among groups.
StoredBits BitsOf(const CompressedTensorsParts& parts);

// values = columns [first_col, first_col + values.size()) of a row, each rounded once to FP32 (products of a
// 16-bit scale and a code are exact).
void DecodePart(const CompressedTensorsParts& parts, size_t row, size_t first_col, std::span<float> values);
// out [any, cols] = rows [first_row, first_row + out.rows), on the calling thread.
void DecodeRows(const CompressedTensorsParts& parts, size_t first_row, MatrixView<float> out);

}  // namespace mica
