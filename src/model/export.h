// A checkpoint as a plain one that any program reads: a packed one in the Hugging Face layout, any as a GGUF
// file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "base/json.h"
#include "base/progress.h"
#include "io/container/tensor.h"

namespace mica {

// Sets the type of the weights in a config.json.
void SetWeightType(Json& config, DType dtype);

struct ExportOptions {
  // F16, BF16, or F32 for the decoded weights exactly; none: F16, and of a plain checkpoint that becomes a
  // GGUF file what its first matrix has (blocks of a GGUF type: F16).
  std::optional<DType> dtype;
  uint64_t shard_bytes = 5'000'000'000;  // tensor data of one file at most, unless one tensor alone is larger
};

struct ExportFacts {
  size_t tensors = 0;
  size_t shards = 0;
  uint64_t file_bytes = 0;  // weight files and index
};

// Writes `out` (absent or an empty directory, be it a mount point or behind a link) in the Hugging Face
// layout: every packed matrix (of mica or of compressed-tensors) decoded into NAME.weight, every other tensor
// of floating point likewise in `dtype`, config.json without its quantization_config, the companions
// (model/companions.h) copied. Holds some 64 MiB of weights at a time. Checksums are compared. Throws Error
// when `packed` is not packed, a value does not fit `dtype` or the disk has not enough room; a failed run
// leaves nothing behind.
ExportFacts ExportPlain(const std::filesystem::path& packed, const std::filesystem::path& out,
                        const ExportOptions& options, Progress& progress);

// Writes the GGUF file `out` from any checkpoint that ModelWeights opens: matrices in `dtype`, norms and
// biases F32, configuration and tokenizer as keys (of a GGUF checkpoint its own tokenizer keys). Holds one
// matrix, or 32 MiB of the embedding, at a time. Throws Error when the model or its tokenizer has no place in
// a GGUF file, a value does not fit `dtype` or the disk has not enough room; a failed run leaves nothing
// behind.
ExportFacts ExportGguf(const std::filesystem::path& model, const std::filesystem::path& out,
                       const ExportOptions& options, Progress& progress);

}  // namespace mica
