// The safetensors format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "io/container/tensor.h"

namespace mica {

struct SafetensorsFile {
  std::shared_ptr<MappedFile> map;              // empty when parsed from bytes
  std::vector<TensorView> tensors;              // in the order of their offsets
  std::map<std::string, std::string> metadata;  // "__metadata__"
  std::span<const std::byte> header;            // as stored, with its length in front
};

// Maps and checks a file: header inside the file, at most 100 MB, valid JSON, known dtypes, offsets that
// agree with shape and dtype, lie inside the file, do not overlap and leave no gap or tail, unique names.
// Throws Error with the file, the tensor and both values.
SafetensorsFile OpenSafetensors(const std::filesystem::path& path);

// The same for a file's bytes that are in memory already and outlive the result; `file` is its name in
// errors.
SafetensorsFile ParseSafetensors(std::span<const std::byte> bytes, const std::string& file);

// What will be written: name, dtype and shape of every tensor must be known before the first byte is.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF16;
  std::vector<uint64_t> shape;
};

// Bytes of the tensor; throws Error when they exceed 2^63 - 1.
uint64_t SpecBytes(const TensorSpec& spec);

// Bytes before the tensors' own in a file of these, its length field and padding included.
uint64_t SafetensorsHeaderBytes(const std::vector<TensorSpec>& specs,
                                const std::map<std::string, std::string>& metadata);

// Writes one file atomically, tensor by tensor, in the order of `specs` (offsets in that order, no gaps; the
// header is padded with spaces so that tensor data begin at a multiple of 64 bytes).
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> specs,
                    const std::map<std::string, std::string>& metadata = {});
  // The next bytes of the tensors, in order; a tensor may come in several pieces.
  void Write(std::span<const std::byte> bytes);
  // Throws (our bug) unless exactly the announced bytes were written; then syncs and renames.
  void Commit();
  uint64_t file_bytes() const { return header_bytes_ + data_bytes_; }

 private:
  AtomicFile file_;
  uint64_t header_bytes_ = 0;
  uint64_t data_bytes_ = 0;  // announced
};

}  // namespace mica
