// What a compression ends in where that is another program's format: made from the shards in which its
// matrices were kept.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "compress/coder/coder.h"
#include "compress/ends.h"
#include "compress/output_place.h"
#include "compress/settings.h"
#include "io/container/checkpoint.h"
#include "model/weights.h"
#include "record/compression.h"

namespace mica {

class OutputFormat {
 public:
  virtual ~OutputFormat() = default;
  // Bytes of the weight files, never fewer than they will have, besides the matrices of decoder layers, and
  // besides embedding and head where the coder plans those. record: what is known before the run.
  virtual uint64_t BytesBesides(const CompressionRecord& record) const = 0;
  // shards: safetensors files that together hold every tensor under the original's names. Throws Error for a
  // damaged one. Files that are there already are replaced.
  virtual void Write(std::span<const std::filesystem::path> shards,
                     const CompressionRecord& record) const = 0;
  // What was written, in the output directory or below it.
  virtual std::filesystem::path model() const = 0;
};

// Null for codings whose shards are the end: those of mica's own. Keeps the addresses of all but model and
// place. model: where the original was opened from.
std::unique_ptr<OutputFormat> MakeOutputFormat(const CompressionSettings& settings,
                                               const ModelWeights& weights,
                                               const std::filesystem::path& model, const Coder& coder,
                                               const Ends& ends, const OutputPlace& place);

}  // namespace mica
