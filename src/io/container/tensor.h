// A named tensor inside a mapped checkpoint file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "format/compressed_tensors/parts.h"
#include "format/gguf/types.h"

namespace mica {

struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<uint64_t> shape;      // row-major, outermost first; empty for a scalar
  std::span<const std::byte> data;  // inside the file's map; little-endian, contiguous, possibly unaligned
  std::string file;                 // file name, for error messages
  // Of a GGUF file: the type whose blocks `data` consists of, row after row; dtype is U8 then, and `shape`
  // counts values. Null for values that stand each by itself.
  const GgmlTypeFacts* blocks = nullptr;
  // Of compressed-tensors: the integers and scales that the values are decoded from; `data` are the words of
  // codes, dtype is I32 then, and `shape` counts values. Null for others.
  std::shared_ptr<const CompressedTensorsParts> integers = nullptr;
  // Where rows (of shape[0]) are stored in another order: row r is number (*row_order)[r] of `data`.
  std::shared_ptr<const std::vector<uint32_t>> row_order = nullptr;

  // Whether the bytes are values, each by itself and in the order of `shape`.
  bool is_plain() const { return blocks == nullptr && integers == nullptr && row_order == nullptr; }
  // All bytes that the values are decoded from, `data` first.
  std::vector<std::span<const std::byte>> stored() const;
  uint64_t stored_bytes() const;

  uint64_t elements() const {
    uint64_t count = 1;
    for (const uint64_t extent : shape) count *= extent;
    return count;
  }
};

// "[640, 1792]".
std::string ShapeText(const std::vector<uint64_t>& shape);

// Product of the extents times `element_bytes`, or nothing when it (or a product on the way) exceeds 2^63
// - 1.
std::optional<uint64_t> ShapeBytes(const std::vector<uint64_t>& shape, size_t element_bytes);

// "F16", "Q4_K", "int4 g128".
std::string TypeName(const TensorView& tensor);
// Whether ReadFloats knows the type, and the Error for one that it does not.
bool IsFloat(const TensorView& tensor);
[[noreturn]] void RefuseType(const TensorView& tensor);

// values[i] = tensor element first + i as FP32, whatever the order of rows: exact widening of F32, F16 and
// BF16, blocks as format/gguf/decode.h says, integers as format/compressed_tensors/parts.h; refuses other
// types. `first` + values.size() must not exceed tensor.elements().
void ReadFloats(const TensorView& tensor, uint64_t first, std::span<float> values);
// The same, and throws Error naming tensor and place of the first value that is NaN or infinite.
void ReadFiniteFloats(const TensorView& tensor, uint64_t first, std::span<float> values);
// Throws as ReadFiniteFloats does for the elements [first, first + count) of a tensor of such a type.
void CheckFinite(const TensorView& tensor, uint64_t first, uint64_t count);

}  // namespace mica
