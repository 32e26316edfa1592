// The metadata of a packed matrix: what its tensors' shapes do not say, and their checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "io/container/checkpoint.h"

namespace mica {

// CRC-32 as zlib computes it, continued from `seed`.
uint32_t Crc32(std::span<const std::byte> bytes, uint32_t seed = 0);
// Eight lower-case hexadecimal digits.
std::string Crc32Text(uint32_t crc);

// Keys of a shard's "__metadata__".
std::string MatrixKey(const std::string& name);        // "mica.matrix.NAME": facts of a packed matrix
std::string PlainKey(const std::string& tensor_name);  // "mica.crc32.NAME": checksum of a plain tensor

// Facts as stored: one JSON object, "crc32" last: {"facts": of the text of the object without this entry,
// part: of that tensor, ...}.
std::string FactsText(Json facts, const std::map<std::string, uint32_t>& part_crc32);

// The facts and parts of one packed matrix, with errors that name them.
class PackedParts {
 public:
  // Throws Error when there are no facts for `name` or they do not parse or match their checksum. With
  // `verify`, every part is compared with its checksum when it is asked for.
  PackedParts(const Checkpoint& checkpoint, const std::string& name, bool verify);

  const std::string& name() const { return name_; }
  // A whole number within [low, high]; throws Error otherwise.
  uint64_t Number(const char* key, uint64_t low, uint64_t high) const;
  int Integer(const char* key, int low, int high) const;
  std::string Text(const char* key) const;
  bool Has(const std::string& part) const { return checkpoint_->Find(name_ + "." + part) != nullptr; }
  // The tensor NAME.part with this type and shape; throws Error. A part whose shape has no elements is not
  // stored: nullptr.
  const TensorView* Part(const std::string& part, DType dtype, const std::vector<uint64_t>& shape);
  // The tensor NAME.part with this type, whatever its shape.
  const TensorView& AnyPart(const std::string& part, DType dtype);
  // The parts asked for so far.
  const std::vector<const TensorView*>& used() const { return used_; }
  bool verify() const { return verify_; }

 private:
  [[noreturn]] void FailFact(const char* key, const std::string& expected) const;
  const Checkpoint* checkpoint_;
  std::string name_;
  bool verify_;
  Json facts_;
  std::vector<const TensorView*> used_;
};

}  // namespace mica
