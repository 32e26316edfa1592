// A packed matrix on its way into a file: the bytes that were counted are the bytes that are written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "format/compressed_tensors/parts.h"
#include "format/entropy/entropy_matrix.h"
#include "format/fixed/fixed_matrix.h"
#include "format/gguf/parts.h"

namespace mica {

// What a stored tensor holds. Codings have different ones of these (docs/format.md).
enum class PartKind {
  kCodes,
  kScales,
  kZeros,
  kOrder,
  kRuns,
  kColExponents,
  kMask,
  kTiles,
  kTables,
  kSide,
  kBlocks,
  kWeightPacked,
  kWeightScale,
  kWeightShape
};

inline bool IsOfCodes(PartKind kind) {
  return kind == PartKind::kCodes || kind == PartKind::kBlocks || kind == PartKind::kWeightPacked;
}

struct PackedPart {
  PartKind kind;
  DType dtype;
  std::vector<uint64_t> shape;
  std::vector<std::byte> bytes;  // little-endian, as in the file; never empty
};

// Facts of a matrix of any coding.
using MatrixFacts = std::variant<FixedFacts, EntropyFacts, GgufFacts, CompressedTensorsFacts>;

struct PackedMatrix {
  MatrixFacts facts;  // what the shapes of the parts do not say
  std::vector<PackedPart> parts;

  // Bits of all parts; padding included, facts and names not.
  uint64_t bits() const {
    uint64_t sum = 0;
    for (const PackedPart& part : parts) sum += 8 * part.bytes.size();
    return sum;
  }
  // Bits of the codes alone.
  uint64_t code_bits() const {
    uint64_t sum = 0;
    for (const PackedPart& part : parts) sum += IsOfCodes(part.kind) ? 8 * part.bytes.size() : 0;
    return sum;
  }
};

}  // namespace mica
