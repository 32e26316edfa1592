// The index of a checkpoint in several files, as Hugging Face has it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/json.h"

namespace mica {

class ShardIndex {
 public:
  // A tensor of `bytes` bytes stands in `file`, a name in the directory of the index.
  void Add(const std::string& tensor, uint64_t bytes, const std::string& file);
  // {"metadata": {"total_size": bytes of all tensors, without headers}, "weight_map": {tensor: file}}, in the
  // order of adding.
  Json ToJson() const;
  // Writes it atomically; bytes of the file.
  uint64_t Write(const std::filesystem::path& path) const;

 private:
  uint64_t total_ = 0;
  Json weight_map_ = Json::object();
};

// At most what the file takes besides its entries, and what the entry of a tensor takes.
inline constexpr uint64_t kIndexFrameBytes = 128;
inline uint64_t IndexEntryBytes(const std::string& tensor) { return tensor.size() + 48; }

}  // namespace mica
