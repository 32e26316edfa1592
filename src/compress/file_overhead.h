// What the weight files hold besides the matrices of the decoder layers, for budgets that count it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "compress/coder/coder.h"
#include "compress/ends.h"
#include "io/packed/packed_checkpoint.h"
#include "model/weights.h"
#include "record/compression.h"

namespace mica {

// Upper estimate of what one compressed matrix adds to headers and index: names, shapes, offsets, checksums,
// facts.
inline constexpr uint64_t kHeaderBytesPerMatrix = 1600;

// Adds the tensors of a layer that are stored as they are.
void AddCopied(const ModelWeights& weights, size_t layer, PackedShard& shard);

class FileOverhead {
 public:
  // Keeps the addresses of all three. counts: whether the budget is one of bytes, which asks for the layers'
  // headers beforehand.
  FileOverhead(const ModelWeights& weights, const Coder& coder, const Ends& ends, bool counts);

  // Before anything is written.
  OtherBytes Least() const;
  // Exact for the shards that are written, in their order, but for the index; estimated for the rest.
  OtherBytes Besides(std::span<const ShardRecord> finished) const;

 private:
  uint64_t OfLayer() const;

  const ModelWeights& weights_;
  const Coder& coder_;
  const Ends& ends_;
  uint64_t layer_ = 0;  // as OfLayer counts it
};

// Of those, what the matrices of decoder layers take.
uint64_t MatrixBytes(std::span<const ShardRecord> finished);

}  // namespace mica
