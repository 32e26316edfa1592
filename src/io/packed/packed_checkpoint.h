// The packed checkpoint: a Hugging Face directory whose compressed matrices are stored as L.codes, L.scales,
// ... (docs/format.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/matrix.h"
#include "format/entropy/entropy_matrix.h"
#include "format/fixed/fixed_matrix.h"
#include "format/stored_bits.h"
#include "io/container/checkpoint.h"
#include "io/container/safetensors.h"

namespace mica {

inline constexpr int kPackedVersion = 2;

// {"quant_method": "mica", "version": 2}: what "quantization_config" of config.json must hold at least.
Json PackedQuantizationConfig();
// Whether config.json is that of a packed checkpoint. Throws Error when its version is not kPackedVersion or
// another program quantised it.
bool IsPacked(const Json& config, const std::string& where);

// The tensors of one compressed matrix, ready to be written under `name` ("model.layers.0.mlp.up_proj").
struct PackedTensor {
  TensorSpec spec;
  std::vector<std::byte> bytes;
};
std::vector<PackedTensor> PackFixed(const std::string& name, const FixedMatrix& matrix);
// The same for coding `entropy`; the model (tables and classes) is stored as it stands in the matrix:
// FitEntropyModel chooses it.
std::vector<PackedTensor> PackEntropy(const std::string& name, const EntropyMatrix& matrix);
// A packed matrix inside a checkpoint, checked once, decoded as often as wanted and by any number of threads.
// Uses the checkpoint's mapped bytes: must not outlive it.
class PackedReader {
 public:
  virtual ~PackedReader() = default;
  const std::string& name() const { return name_; }
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  const std::string& coding() const { return coding_; }
  // The tensors it is stored in.
  const std::vector<const TensorView*>& tensors() const { return tensors_; }
  // Rows [first_row, first_row + out.rows), all columns in original order, FP32; spread over the threads.
  // Throws Error when the range or the width of `out` does not fit the matrix.
  void Decode(size_t first_row, MatrixView<float> out) const;
  virtual StoredBits stored_bits() const = 0;

 protected:
  virtual void DecodeRows(size_t first_row, MatrixView<float> out) const = 0;
  std::string name_;
  std::string coding_;
  size_t rows_ = 0;
  size_t cols_ = 0;
  std::vector<const TensorView*> tensors_;
};

// Whether `name` (without ".weight") is stored packed.
bool HasPacked(const Checkpoint& checkpoint, const std::string& name);
// Names of all packed matrices, sorted.
std::vector<std::string> PackedNames(const Checkpoint& checkpoint);
// Opens and checks one: parts, types, shapes, ranges and (unless `verify` is false) checksums. Throws Error
// naming the tensor.
std::unique_ptr<PackedReader> OpenPacked(const Checkpoint& checkpoint, const std::string& name,
                                         bool verify = true);
// Opens, decodes rows [first_row, first_row + out.rows) and gives the mapped pages back. For many small
// ranges keep an OpenPacked instead.
void DecodePacked(const Checkpoint& checkpoint, const std::string& name, size_t first_row,
                  MatrixView<float> out);
// Reads and checks a matrix of coding `fixed`; throws Error naming the tensor.
FixedMatrix UnpackFixed(const Checkpoint& checkpoint, const std::string& name);
// Checks a plain tensor against its CRC-32 where the checkpoint has one; throws Error naming the tensor.
void VerifyPlain(const Checkpoint& checkpoint, const TensorView& tensor);

// One shard in the making: packed matrices and plain tensors, each with its CRC-32 in the metadata. Holds the
// packed bytes.
class PackedShard {
 public:
  void Add(const std::string& name, const FixedMatrix& matrix);
  void Add(const std::string& name, const EntropyMatrix& matrix);
  void AddPlain(const TensorSpec& spec, std::vector<std::byte> bytes);
  // Names of the tensors in the file, for the index.
  std::vector<std::string> tensor_names() const;
  // Bytes of all tensors, without the header.
  uint64_t data_bytes() const;
  // Writes the file atomically; bytes of the file.
  uint64_t Write(const std::filesystem::path& path) const;

 private:
  void AddPacked(const std::string& name, Json facts, std::vector<PackedTensor> tensors);
  std::vector<PackedTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace mica
