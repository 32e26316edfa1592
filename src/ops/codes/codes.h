// Packs and decodes whole matrices: the loops over the tiles, row blocks and scale groups of src/format,
// spread over the threads. Results do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <span>
#include <variant>

#include "base/matrix.h"
#include "device/tensor.h"
#include "format/compressed_tensors/parts.h"
#include "format/entropy/encode.h"
#include "format/entropy/entropy_matrix.h"
#include "format/entropy/parts.h"
#include "format/fixed/encode.h"
#include "format/fixed/fixed_matrix.h"
#include "format/fixed/parts.h"
#include "format/gguf/parts.h"
#include "format/packed_matrix.h"

namespace mica {

// The stored tensors of a matrix as docs/format.md describes them; aborts when its members do not fit each
// other.
PackedMatrix Pack(const FixedMatrix& matrix);
// Integers of a FixedMatrix where they were made, all on one device, by column.
struct FixedIntegers {
  ConstTensor codes;   // [cols, rows] U16
  ConstTensor keep;    // [cols, rows] U8, 0 or not; empty without a mask
  ConstTensor scales;  // [scale groups, rows] U8, ScaleCode
  ConstTensor zeros;   // [scale groups, rows] U8
};
// The same bytes. A CUDA device packs them itself, which takes of its memory what the streams take and with a
// mask an eighth of a byte a weight more.
PackedMatrix Pack(const FixedFrame& matrix, const FixedIntegers& integers);
// The streams, for Pack.
FixedStreams EncodeFixed(const FixedFrame& matrix, const FixedIntegers& integers);
// The model (tables and classes) is stored as it stands in the matrix: FitEntropyModel chooses it.
PackedMatrix Pack(const EntropyMatrix& matrix);
// With so many lanes instead of what ChooseLanes says.
PackedMatrix Pack(const EntropyMatrix& matrix, size_t lanes);
// Integers that are not in the matrix: n [rows, cols] of type I16, on any device, where they are encoded. The
// bytes are the same.
PackedMatrix Pack(const EntropyFrame& matrix, ConstTensor n);
// The streams of all tiles, for Pack.
EntropyStreams EncodeEntropy(const EntropyFrame& matrix, ConstTensor n, size_t lanes);

// out [rows, cols], original order of rows and columns = the weights in FP32, as they will be read back.
void Decode(const FixedMatrix& matrix, MatrixView<float> out);
void Decode(const EntropyMatrix& matrix, MatrixView<float> out);

// Rows of a matrix's stored tensors, and where they go. Parts: FixedParts, EntropyParts, GgufParts,
// CompressedTensorsParts or AnyParts.
using AnyParts = std::variant<FixedParts, EntropyParts, GgufParts, CompressedTensorsParts>;
template <typename Parts>
struct RowsOf {
  const Parts* parts = nullptr;
  size_t first_row = 0;
  Tensor out;
};

// out [any, cols] = rows [first_row, first_row + out.rows), all columns. On the processor `out` is FP32; on a
// CUDA device FP32 or, each weight rounded once from FP32, BF16 or F16. Throws Error when the range or the
// width of `out` does not fit the matrix, when a stream of coding `entropy` is damaged and when a code of 16
// bits is not finite; `out` then holds anything.
void Decode(const FixedParts& parts, size_t first_row, Tensor out);
void Decode(const EntropyParts& parts, size_t first_row, Tensor out);
// Formats of other programs are decoded by the processor, whatever the device of `out`.
void Decode(const GgufParts& parts, size_t first_row, Tensor out);
void Decode(const CompressedTensorsParts& parts, size_t first_row, Tensor out);
void Decode(const AnyParts& parts, size_t first_row, Tensor out);
// The same of many matrices, which a CUDA device decodes side by side: one matrix of coding `entropy` has too
// few tiles to fill it. All `out` are on one device and of one type.
void DecodeMany(std::span<const RowsOf<AnyParts>> all);
void DecodeFixed(std::span<const RowsOf<FixedParts>> all);
void DecodeEntropy(std::span<const RowsOf<EntropyParts>> all);

}  // namespace mica
