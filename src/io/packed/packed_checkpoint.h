// The packed checkpoint: a Hugging Face directory whose compressed matrices are stored as L.codes, L.scales,
// ... (docs/format.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "format/packed_matrix.h"
#include "io/container/checkpoint.h"
#include "io/container/safetensors.h"

namespace mica {

inline constexpr int kPackedVersion = 3;

// {"quant_method": "mica", "version": 3}: what "quantization_config" of config.json must hold at least.
Json PackedQuantizationConfig();
// Whether config.json is that of a packed checkpoint. Throws Error when its version is not kPackedVersion or
// another program quantised it, but for compressed-tensors, which model/compressed_tensors reads.
bool IsPacked(const Json& config, const std::string& where);

// Whether `name` (without ".weight") is stored packed.
bool HasPacked(const Checkpoint& checkpoint, const std::string& name);
// Names of all packed matrices, sorted.
std::vector<std::string> PackedNames(const Checkpoint& checkpoint);
// Checks a plain tensor against its CRC-32 where the checkpoint has one; throws Error naming the tensor.
void VerifyPlain(const Checkpoint& checkpoint, const TensorView& tensor);

// A tensor with its name, ready to be written.
struct PackedTensor {
  TensorSpec spec;
  std::vector<std::byte> bytes;
};
// The parts of a matrix under `name` ("model.layers.0.mlp.up_proj").
std::vector<PackedTensor> NamedTensors(const std::string& name, PackedMatrix matrix);

// One shard in the making: packed matrices and plain tensors, each with its CRC-32 in the metadata. Holds the
// packed bytes.
class PackedShard {
 public:
  void Add(const std::string& name, PackedMatrix matrix);
  void AddPlain(const TensorSpec& spec, std::vector<std::byte> bytes);
  // Names of the tensors in the file, for the index.
  std::vector<std::string> tensor_names() const;
  // Bytes of all tensors, without the header.
  uint64_t data_bytes() const;
  // Bytes before the tensors' own in the file.
  uint64_t header_bytes() const;
  // Writes the file atomically; bytes of the file.
  uint64_t Write(const std::filesystem::path& path) const;

 private:
  std::vector<PackedTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace mica
