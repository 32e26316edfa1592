// A checkpoint directory (a snapshot of the hub's cache as well, hub_cache.h) or single file in the Hugging
// Face layout, whatever its files are:
// model.safetensors, model.safetensors.index.json with shards, pytorch_model.bin,
// pytorch_model.bin.index.json with shards; shards that lack their index as well, when all are there. And a
// GGUF file, or all parts of one that was split.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/file.h"
#include "io/container/gguf.h"
#include "io/container/tensor.h"
#include "io/container/zip.h"

namespace mica {

// Where a compression keeps what it needs to go on, inside its output: there as long as it is not finished.
inline constexpr const char* kUnfinishedDirectory = ".work";

// The vocabulary of a GGUF file, kept beside weights in another form: a GGUF file without tensors, no model.
inline constexpr const char* kVocabularyFile = "tokenizer.gguf";

// Throws Error unless `path` is a directory; one in which a compression was not finished is named so.
void CheckModelDirectory(const std::filesystem::path& path);

// Whether Checkpoint::Open takes `path` for a GGUF model: a file of that name, or a directory without weights
// in the Hugging Face layout that holds one. The configuration and the vocabulary are in the file then.
bool IsGgufModel(const std::filesystem::path& path);

// Names of the weight files that a checkpoint directory should have and has not: shards that its index names,
// or the gaps in a row of numbered ones. Opening it would name the first. Sorted.
std::vector<std::string> MissingShards(const std::filesystem::path& directory);

// A weight file that was opened.
struct WeightFile {
  std::string name;  // without its directory
  uint64_t bytes = 0;
  std::span<const std::byte> header;  // of a safetensors file, with its length in front; else empty
};

class Checkpoint {
 public:
  // Opens the first of the layouts that exists in the directory, in the order above, which is that of Hugging
  // Face's loader, or a single .safetensors, .bin, .pt, .pth or .gguf file, and checks every file's header
  // (not the values). A packed checkpoint is what its index names: that comes before a single file. A
  // directory that has none of them may hold one GGUF model; any part of a split one stands for all. Throws
  // Error.
  static Checkpoint Open(const std::filesystem::path& path, bool packed = false);

  // Where config.json and the tokenizer are; the parent when a single file was opened.
  const std::filesystem::path& directory() const { return directory_; }
  // All tensors, sorted by name.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  // nullptr when absent.
  const TensorView* Find(const std::string& name) const;
  // Throws Error naming the checkpoint and the tensor when absent.
  const TensorView& Get(const std::string& name) const;
  // The keys of a GGUF model (those of the first part), null for others. Its tensors have the names and the
  // order of rows of the file until Adopt gives them others.
  const std::vector<GgufKey>* gguf() const { return gguf_.get(); }
  // Takes these views of the data of tensors() in their place, under names and orders of rows of the caller's.
  void Adopt(std::vector<TensorView> tensors);
  // Keeps bytes for a view of a tensor that is not in a file as it is read.
  std::span<const std::byte> Keep(std::vector<std::byte> bytes);
  // Metadata strings of all safetensors shards, merged (the last shard wins).
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // To be called before the values of a tensor are used: compares the CRC-32 that a PyTorch file has of them,
  // once, and throws Error when it differs. Safetensors files have none.
  void Verify(const TensorView& tensor) const;
  // Copies a part of a tensor's bytes as stored: faster than through the map where each is read once.
  void Read(std::span<const std::byte> part, std::byte* out) const;
  // To be called after the values were read. Gives the mapped pages of the tensor (or of the part of it that
  // tensor.data covers) back to the system; it can be read again at any time. Throws Error when the file has
  // changed since it was opened.
  void Release(const TensorView& tensor) const;

  // Bytes of the weight files on disk (shards and index).
  uint64_t file_bytes() const { return file_bytes_; }
  // The weight files without the index, in the order in which they were opened.
  const std::vector<WeightFile>& files() const { return files_; }
  // Names of other weight files in the directory: those of a layout that comes later, or of none. Sorted.
  const std::vector<std::string>& unread_files() const { return unread_files_; }
  // "safetensors", "safetensors, 3 shards", "PyTorch .bin", "PyTorch .bin, 3 shards" (", no index"), "GGUF, Q4_K
  // and Q6_K" (", 3 files").
  const std::string& layout() const { return layout_; }

  // The SHA-256 of each tensor's bytes as stored (all that TensorView::stored has), in hexadecimal digits, in
  // the order given: the same for a sharded copy or a .bin copy of the same weights. Reads every byte once,
  // tensors in parallel (pages are given back behind it), and checks what it reads: each tensor that
  // `must_be_finite` names for infinities and NaN, and those of PyTorch files as Verify does.
  std::vector<std::string> Hashes(const std::vector<const TensorView*>& tensors,
                                  const std::function<bool(const TensorView&)>& must_be_finite = {}) const;

 private:
  // The file that a tensor's bytes are mapped from; null where they are not.
  const MappedFile* MapOf(std::span<const std::byte> part) const;

  // The checksum of a storage, and whether its data were compared with it.
  struct Storage {
    ZipEntry entry;
    std::string file;
    std::once_flag verified;
  };

  void OpenShard(const std::filesystem::path& path, bool torch, std::vector<TensorView>& tensors);
  void OpenSharded(const std::filesystem::path& index, bool torch);
  void OpenWithoutIndex(const std::vector<std::filesystem::path>& shards, bool torch);
  void OpenGgufFiles(const std::vector<std::filesystem::path>& files);
  void OpenSingle(const std::filesystem::path& path);
  void OpenDirectory(const std::filesystem::path& path, bool packed);
  void SortTensors();

  std::filesystem::path directory_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string, size_t> by_name_;
  std::map<std::string, std::string> metadata_;
  std::vector<std::shared_ptr<MappedFile>> maps_;
  std::vector<WeightFile> files_;
  std::vector<std::string> unread_files_;
  std::map<const std::byte*, std::shared_ptr<Storage>> storages_;  // by where their data begin
  std::shared_ptr<const std::vector<GgufKey>> gguf_;
  std::vector<std::shared_ptr<const std::vector<std::byte>>> kept_;
  uint64_t file_bytes_ = 0;
  std::string layout_;
};

}  // namespace mica
