#include "io/container/shard_index.h"

namespace mica {

void ShardIndex::Add(const std::string& tensor, uint64_t bytes, const std::string& file) {
  total_ += bytes;
  weight_map_[tensor] = file;
}

Json ShardIndex::ToJson() const {
  return {{"metadata", {{"total_size", total_}}}, {"weight_map", weight_map_}};
}

uint64_t ShardIndex::Write(const std::filesystem::path& path) const {
  WriteJson(path, ToJson());
  return std::filesystem::file_size(path);
}

}  // namespace mica
