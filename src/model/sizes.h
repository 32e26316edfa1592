// What a packed directory stores, byte by byte.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "format/stored_bits.h"
#include "model/family/family.h"

namespace mica {

// Every byte of a packed directory, by what it is for. The matrices of the decoder layers: codes, scales,
// zeros, mask, order, groups, padding; then embeddings, head (packed or not), plain (other matrices that are
// not packed), norms, biases, headers (safetensors headers and index), other (config, tokenizer, ...). The
// parts sum to the size of the directory without hidden folders; a part of a byte counts as padding.
struct PackedSizes {
  std::map<std::string, uint64_t> bytes;
  StoredBits matrix_bits;               // of the compressed matrices of the decoder layers
  uint64_t compressed_weights = 0;      // weights in those
  uint64_t compressed_matrix_bits = 0;  // matrix_bits.total()
  uint64_t total_bytes = 0;
};
PackedSizes MeasurePacked(const std::filesystem::path& directory, const Family& family);
// The same of a GGUF file and the directory that it stands in, or of a directory of compressed-tensors.
// Blocks of GGUF are codes, whatever stands among them.
PackedSizes MeasureOtherFormat(const std::filesystem::path& model);

}  // namespace mica
