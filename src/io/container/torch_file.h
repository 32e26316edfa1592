// PyTorch checkpoints (.bin, .pt) in the zip format of PyTorch 1.6 and later: <prefix>/data.pkl says which
// tensors there are, <prefix>/data/<key> holds the bytes of each storage.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "io/container/safetensors.h"
#include "io/container/tensor.h"
#include "io/container/zip.h"

namespace mica {

struct TorchFile {
  std::shared_ptr<MappedFile> map;  // empty when parsed from bytes
  std::vector<TensorView> tensors;  // in the order of the dictionary; data inside the map
  std::vector<ZipEntry> storages;   // what holds them; their CRC-32 is for the reader of the values to check
};

// Maps and checks a file: a stored zip archive (io/zip.h), a dictionary of tensors (io/pickle.h) whose CRC-32
// is right, little-endian, every tensor contiguous and inside its storage, every storage as long as its
// tensors say. Nothing in the file is executed. Throws Error with the file, the tensor and both values; a
// file that is something else, as that of a PyTorch before 1.6, is named for what it is.
TorchFile OpenTorchFile(const std::filesystem::path& path);

// The same for a file's bytes that are in memory already and outlive the result; `file` is its name in
// errors.
TorchFile ParseTorchFile(std::span<const std::byte> bytes, const std::string& file);

// Writes one file atomically, tensor by tensor in the order of `specs`, each in a storage of its own, aligned
// to 64 bytes; torch.load(weights_only=True) reads it. U32 and U16 have no storage class in PyTorch: Error.
class TorchWriter {
 public:
  TorchWriter(const std::filesystem::path& path, std::vector<TensorSpec> specs);
  // The next bytes of the tensors, in order; a tensor may come in several pieces.
  void Write(std::span<const std::byte> bytes);
  // Stops the program (our bug) unless exactly the announced bytes were written; then syncs and renames.
  void Commit();
  uint64_t file_bytes() const { return archive_.bytes_written(); }

 private:
  void BeginNext();

  ZipWriter archive_;
  std::string prefix_;
  std::vector<TensorSpec> specs_;
  size_t begun_ = 0;  // tensors begun
};

}  // namespace mica
