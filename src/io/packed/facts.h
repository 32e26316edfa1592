// Names of the parts of a packed matrix, and its metadata: what the parts' shapes do not say, and their
// checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "format/entropy/entropy_matrix.h"
#include "format/fixed/fixed_matrix.h"
#include "format/packed_matrix.h"
#include "io/container/checkpoint.h"

namespace mica {

// CRC-32 as zlib computes it, continued from `seed`.
uint32_t Crc32(std::span<const std::byte> bytes, uint32_t seed = 0);
// Eight lower-case hexadecimal digits.
std::string Crc32Text(uint32_t crc);

// Keys of a shard's "__metadata__".
std::string MatrixKey(const std::string& name);        // "mica.matrix.NAME": facts of a packed matrix
std::string PlainKey(const std::string& tensor_name);  // "mica.crc32.NAME": checksum of a plain tensor

// "codes": the part is stored as the tensor NAME.codes.
const char* PartName(PartKind kind);

// Facts of a matrix as JSON, "coding" first; without checksums.
Json FactsJson(const FixedFacts& facts);
Json FactsJson(const EntropyFacts& facts);
Json FactsJson(const GgufFacts& facts);
Json FactsJson(const CompressedTensorsFacts& facts);
Json FactsJson(const MatrixFacts& facts);
// Facts as stored: one JSON object, "crc32" last: {"facts": of the text of the object without this entry,
// part: of that tensor, ...}.
std::string FactsText(Json facts, const std::map<std::string, uint32_t>& part_crc32);

// The facts and parts of one packed matrix, with errors that name them.
class PartReader {
 public:
  // Throws Error when there are no facts for `name` or they do not parse or match their checksum. With
  // `verify`, every part is compared with its checksum when it is asked for.
  PartReader(const Checkpoint& checkpoint, const std::string& name, bool verify);

  const std::string& name() const { return name_; }
  // "fixed", "entropy", "gguf" or "compressed-tensors", or what else stands there.
  std::string coding() const { return Text("coding"); }
  // Facts of that coding, each within its range; throws Error otherwise.
  FixedFacts Fixed() const;
  EntropyFacts Entropy() const;
  GgufFacts Gguf() const;
  CompressedTensorsFacts CompressedTensors() const;
  bool Has(PartKind part) const { return checkpoint_->Find(TensorName(part)) != nullptr; }
  // The tensor of the part with this type and shape; throws Error. A part whose shape has no elements is not
  // stored: nullptr.
  const TensorView* Part(PartKind part, DType dtype, const std::vector<uint64_t>& shape);
  // The tensor of the part with this type, whatever its shape.
  const TensorView& AnyPart(PartKind part, DType dtype);
  // The parts asked for so far.
  const std::vector<const TensorView*>& used() const { return used_; }

 private:
  std::string TensorName(PartKind part) const { return name_ + "." + PartName(part); }
  // A whole number within [low, high]; throws Error otherwise.
  uint64_t Number(const char* key, uint64_t low, uint64_t high) const;
  int Integer(const char* key, int low, int high) const;
  std::string Text(const char* key) const;
  [[noreturn]] void FailFact(const char* key, const std::string& expected) const;
  const Checkpoint* checkpoint_;
  std::string name_;
  bool verify_;
  Json facts_;
  std::vector<const TensorView*> used_;
};

}  // namespace mica
