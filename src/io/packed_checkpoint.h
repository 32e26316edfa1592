// The packed checkpoint: a Hugging Face directory whose compressed matrices are stored as L.codes, L.scales, ... (docs/format.md).
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/json.h"
#include "io/checkpoint.h"
#include "io/packed_matrix.h"
#include "io/safetensors.h"

namespace mica {

inline constexpr int kPackedVersion = 1;

// Whether config.json declares quant_method "mica"; throws Error when its version is newer than kPackedVersion.
bool IsPacked(const Json& config, const std::string& where);

// The tensors of one compressed matrix, ready to be written under `name` ("model.layers.0.mlp.up_proj").
struct PackedTensor {
  TensorSpec spec;
  std::vector<std::byte> bytes;
};
std::vector<PackedTensor> PackFixed(const std::string& name, const FixedMatrix& matrix);
// Exactly the bits PackFixed stores, without making them: for the allocator. `kept` = weights that have a code, by stored column.
StoredBits FixedStoredBits(size_t rows, const std::vector<uint8_t>& widths, size_t group_size, MaskKind mask,
                           const std::vector<uint64_t>& kept_per_column, bool identity_order);

// Whether `name` (without ".weight") is stored packed.
bool HasPacked(const Checkpoint& checkpoint, const std::string& name);
// Reads and checks (shapes, ranges, checksum) a packed matrix; throws Error naming the tensor.
FixedMatrix UnpackFixed(const Checkpoint& checkpoint, const std::string& name);
// weights [rows, cols] FP32 in original order, whatever the coding; rows [first_row, first_row + out.rows) only.
void DecodePacked(const Checkpoint& checkpoint, const std::string& name, size_t first_row, MatrixView<float> out);

// Writes one shard atomically: packed matrices and plain tensors, each with its CRC-32 in the metadata.
class PackedShard {
 public:
  void Add(const std::string& name, const FixedMatrix& matrix);
  void AddPlain(const TensorSpec& spec, std::vector<std::byte> bytes);
  // Bytes of the file this will be.
  uint64_t Write(const std::filesystem::path& path) const;

 private:
  std::vector<PackedTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Every byte of a packed directory, by what it is for: codes, scales, zeros, mask, order, groups, padding, embeddings, head, norms,
// headers (safetensors headers and index), other (config, tokenizer, ...). The parts sum to the directory's size.
struct PackedSizes {
  std::map<std::string, uint64_t> bytes;
  uint64_t compressed_weights = 0;       // weights in compressed matrices
  uint64_t compressed_matrix_bits = 0;   // all stored bits of the compressed matrices of the decoder layers
  uint64_t total_bytes = 0;
};
PackedSizes MeasurePacked(const std::filesystem::path& directory);

}  // namespace mica
