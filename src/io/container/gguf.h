// The GGUF format, versions 2 and 3, little-endian: keys with typed values, a list of tensors, then their
// bytes, each tensor at a multiple of the file's alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/file.h"
#include "format/gguf/types.h"

namespace mica {

// The elements of an array, all of one type. In both variants the index of an alternative is the number that
// the file has for its type (9 is an array).
struct GgufArray {
  std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
               std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>, std::vector<bool>,
               std::vector<std::string>, std::vector<GgufArray>, std::vector<uint64_t>, std::vector<int64_t>,
               std::vector<double>>
      elements;
  bool operator==(const GgufArray& other) const { return elements == other.elements; }
};
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool,
                               std::string, GgufArray, uint64_t, int64_t, double>;

struct GgufKey {
  std::string name;
  GgufValue value;
};

// The value of the key of that name, or null when there is none.
const GgufValue* FindKey(const std::vector<GgufKey>& keys, std::string_view name);

// What the file has for the type of the value, "UINT32".
const char* ValueTypeName(const GgufValue& value);
// A whole number of any of the types that hold one, or nothing when it is another value or beyond 2^63 - 1.
std::optional<int64_t> WholeNumberOf(const GgufValue& value);

// A tensor as a list of what is stored of it.
struct GgufTensorSpec {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<uint64_t> shape;  // outermost first, as elsewhere; a file has it the other way round
};

struct GgufTensor : GgufTensorSpec {
  uint64_t rows = 1, cols = 1;      // cols: the innermost extent, a multiple of the type's block_cols
  std::span<const std::byte> data;  // inside the file's map: `rows` rows of blocks (format/gguf/decode.h)
};

struct GgufFile {
  std::shared_ptr<MappedFile> map;  // empty when parsed from bytes
  uint32_t version = 0;
  uint64_t alignment = 0;
  std::vector<GgufKey> keys;        // as in the file
  std::vector<GgufTensor> tensors;  // as in the file
};

// Maps and checks a file: counts and lengths inside the file, known types, unique names, at most 4 extents
// that fit a file, rows of whole blocks, tensors at aligned offsets that follow one another in some order
// without overlap or gap, nothing after them but padding. Throws Error with the file, the key or tensor and
// both values.
GgufFile OpenGguf(const std::filesystem::path& path);

// The same for a file's bytes that are in memory already and outlive the result; `file` is its name in
// errors.
GgufFile ParseGguf(std::span<const std::byte> bytes, const std::string& file);

// Bytes of such a tensor; throws Error when they exceed 2^63 - 1 or a row is not a whole number of blocks.
uint64_t SpecBytes(const GgufTensorSpec& spec);

// Bytes of a file with such tensors and keys.
uint64_t GgufFileBytes(const std::vector<GgufTensorSpec>& specs, const std::vector<GgufKey>& keys);

// Writes one file (version 3) atomically, tensor by tensor, in the order of `specs`, with the padding between
// them. Throws Error for what a reader would refuse: names that are too long, rows that are not whole blocks,
// a key general.alignment that is not a power of two in 32 bits (without it the alignment is 32).
class GgufWriter {
 public:
  GgufWriter(const std::filesystem::path& path, std::vector<GgufTensorSpec> specs,
             const std::vector<GgufKey>& keys);
  // The next bytes of the tensors, in order and without padding; a tensor may come in several pieces.
  void Write(std::span<const std::byte> bytes);
  // Throws (our bug) unless exactly the announced bytes were written; then syncs and renames.
  void Commit();
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  void PadWholeTensors();

  AtomicFile file_;
  uint64_t alignment_ = 0;
  uint64_t file_bytes_ = 0;        // announced
  std::vector<uint64_t> tensors_;  // bytes of each
  size_t current_ = 0;             // tensor
  uint64_t written_ = 0;           // of its bytes
};

}  // namespace mica
