// Coding `fixed` of the packed format (docs/format.md): layout arithmetic and the reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "io/packed_checkpoint.h"
#include "io/packed_facts.h"

namespace mica {

// The code stream of every scale group starts at a multiple of this: 128 columns of any width are then rows
// of whole 16-byte vectors.
inline constexpr uint64_t kGroupAlignment = 16;
constexpr uint64_t AlignGroup(uint64_t bytes) {
  return (bytes + kGroupAlignment - 1) / kGroupAlignment * kGroupAlignment;
}
// Rows whose position in masked code streams the reader remembers.
inline constexpr size_t kBlockRows = 64;

// One row of L.groups.
struct GroupRun {
  uint32_t start;  // first stored column
  uint32_t bits;
};
static_assert(sizeof(GroupRun) == 8);
// Without a mask, a scale group of 128 columns and 64 rows takes 1024 bytes a bit of width, aligned.
static_assert(AlignGroup(kBlockRows * 128 * 3 / 8) == 3 * 1024);

// Metadata of a fixed matrix, and its reader.
Json FixedFacts(const FixedMatrix& matrix);
std::unique_ptr<PackedReader> OpenFixed(PackedParts parts);

}  // namespace mica
