// A checkpoint directory (or single file) in the Hugging Face layout, whatever its files are:
// model.safetensors, model.safetensors.index.json with shards, pytorch_model.bin,
// pytorch_model.bin.index.json with shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "io/container/tensor.h"

namespace mica {

class Checkpoint {
 public:
  // Opens the first of the four layouts that exists in the directory, in the order above, or a single
  // .safetensors, .bin, .pt or .pth file, and checks every file's header (not the values). Throws Error.
  static Checkpoint Open(const std::filesystem::path& path);

  // Where config.json and the tokenizer are; the parent when a single file was opened.
  const std::filesystem::path& directory() const { return directory_; }
  // All tensors, sorted by name.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  // nullptr when absent.
  const TensorView* Find(const std::string& name) const;
  // Throws Error naming the checkpoint and the tensor when absent.
  const TensorView& Get(const std::string& name) const;
  // Metadata strings of all safetensors shards, merged (the last shard wins).
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Gives the mapped pages of the tensor (or of the part of it that tensor.data covers) back to the system;
  // it can be read again at any time.
  void Release(const TensorView& tensor) const;

  // Bytes of the weight files on disk (shards and index).
  uint64_t file_bytes() const { return file_bytes_; }
  // "safetensors", "safetensors, 3 shards", "PyTorch .bin", "PyTorch .bin, 3 shards".
  const std::string& layout() const { return layout_; }

  // The SHA-256 of each tensor's bytes as stored, in hexadecimal digits, in the order given: the same for a
  // sharded copy or a .bin copy of the same weights. Reads every byte once, tensors in parallel (pages are
  // given back behind it).
  std::vector<std::string> Hashes(const std::vector<const TensorView*>& tensors) const;

 private:
  void OpenShard(const std::filesystem::path& path, bool torch, std::vector<TensorView>& tensors);
  void OpenSharded(const std::filesystem::path& index, bool torch);

  std::filesystem::path directory_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::shared_ptr<MappedFile>> maps_;
  uint64_t file_bytes_ = 0;
  std::string layout_;
};

}  // namespace mica
