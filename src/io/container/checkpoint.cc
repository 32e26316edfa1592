#include "io/container/checkpoint.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/text.h"
#include "base/threads.h"
#include "io/container/safetensors.h"
#include "io/container/torch_file.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr size_t kHashedBytes = size_t{16}
                                << 20;  // hashed, then released: bounds the resident set of a thread
constexpr const char* kConfigName = "config.json";

// A shard's name comes from the index, so it may name nothing outside the directory.
bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

}  // namespace

void Checkpoint::OpenShard(const fs::path& path, bool torch, std::vector<TensorView>& tensors) {
  std::vector<TensorView> found;
  if (torch) {
    TorchFile file = OpenTorchFile(path);
    maps_.push_back(std::move(file.map));
    found = std::move(file.tensors);
  } else {
    SafetensorsFile file = OpenSafetensors(path);
    maps_.push_back(std::move(file.map));
    found = std::move(file.tensors);
    for (auto& [key, value] : file.metadata) metadata_[key] = std::move(value);
  }
  file_bytes_ += maps_.back()->size();
  std::move(found.begin(), found.end(), std::back_inserter(tensors));
}

void Checkpoint::OpenSharded(const fs::path& index, bool torch) {
  const std::string where = index.string();
  const Json json = ReadJson(index);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    Fail("{}: has no \"weight_map\" object, which says which shard holds each tensor", where);
  }
  std::unordered_map<std::string, std::string> shard_of;
  std::map<std::string, size_t> shards;  // name to number of tensors the index expects there
  for (const auto& [name, shard] : json["weight_map"].items()) {
    if (!shard.is_string() || !IsPlainName(shard.get<std::string>())) {
      Fail("{}: tensor {} is said to be in {}, expected the plain name of a file in the same directory",
           where, Printable(name), Printable(shard.dump(-1, ' ', true, Json::error_handler_t::replace)));
    }
    if (!shard_of.emplace(name, shard.get<std::string>()).second)
      Fail("{}: names tensor {} twice", where, Printable(name));
    ++shards[shard.get<std::string>()];
  }
  if (shards.empty()) Fail("{}: \"weight_map\" is empty", where);
  file_bytes_ += fs::file_size(index);

  for (const auto& [shard, expected] : shards) {
    const fs::path path = index.parent_path() / shard;
    if (!fs::exists(path)) {
      Fail("{}: names the shard {}, which is missing ({} tensors); complete the download", where,
           Printable(shard), expected);
    }
    std::vector<TensorView> found;
    OpenShard(path, torch, found);
    for (const TensorView& tensor : found) {
      const auto entry = shard_of.find(tensor.name);
      if (entry == shard_of.end()) {
        Fail("{}: tensor {} is not in {}; the shard belongs to another checkpoint", path.string(),
             Printable(tensor.name), index.filename().string());
      }
      if (entry->second != shard) {
        Fail("{}: tensor {} is said to be in {} by {}", path.string(), Printable(tensor.name),
             Printable(entry->second), index.filename().string());
      }
      shard_of.erase(entry);
    }
    std::move(found.begin(), found.end(), std::back_inserter(tensors_));
  }
  if (!shard_of.empty()) {
    const auto missing = std::min_element(shard_of.begin(), shard_of.end());
    Fail("{}: tensor {} is missing from {}{}", where, Printable(missing->first), Printable(missing->second),
         shard_of.size() > 1 ? fmt::format(" (and {} more)", shard_of.size() - 1) : "");
  }
  layout_ += fmt::format(", {} shard{}", shards.size(), shards.size() == 1 ? "" : "s");
}

Checkpoint Checkpoint::Open(const fs::path& path) {
  Checkpoint checkpoint;
  if (!fs::exists(path)) Fail("{}: does not exist; give a checkpoint directory", path.string());
  constexpr const char* kSafetensorsLayout = "safetensors";
  constexpr const char* kTorchLayout = "PyTorch .bin";
  if (!fs::is_directory(path)) {
    const std::string extension = path.extension().string();
    const bool torch = extension == ".bin" || extension == ".pt" || extension == ".pth";
    if (!torch && extension != ".safetensors") {
      Fail("{}: is not a checkpoint; expected a directory or a .safetensors or .bin file", path.string());
    }
    checkpoint.directory_ = path.has_parent_path() ? path.parent_path() : fs::path(".");
    checkpoint.layout_ = torch ? kTorchLayout : kSafetensorsLayout;
    checkpoint.OpenShard(path, torch, checkpoint.tensors_);
  } else {
    checkpoint.directory_ = path;
    bool opened = false;
    for (const bool torch : {false, true}) {
      const char* single = torch ? "pytorch_model.bin" : "model.safetensors";
      const char* index = torch ? "pytorch_model.bin.index.json" : "model.safetensors.index.json";
      checkpoint.layout_ = torch ? kTorchLayout : kSafetensorsLayout;
      if (fs::exists(path / single)) {
        checkpoint.OpenShard(path / single, torch, checkpoint.tensors_);
        opened = true;
      } else if (fs::exists(path / index)) {
        checkpoint.OpenSharded(path / index, torch);
        opened = true;
      }
      if (opened) break;
    }
    if (!opened) {
      Fail(
          "{}: holds no weights; expected model.safetensors, model.safetensors.index.json, pytorch_model.bin "
          "or "
          "pytorch_model.bin.index.json",
          path.string());
    }
  }
  std::sort(checkpoint.tensors_.begin(), checkpoint.tensors_.end(),
            [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  for (size_t i = 0; i < checkpoint.tensors_.size(); ++i)
    checkpoint.by_name_[checkpoint.tensors_[i].name] = i;
  return checkpoint;
}

const TensorView* Checkpoint::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const TensorView& Checkpoint::Get(const std::string& name) const {
  const TensorView* tensor = Find(name);
  if (tensor == nullptr) {
    Fail("{}: tensor {} is missing; the checkpoint does not match its config.json", directory_.string(),
         Printable(name));
  }
  return *tensor;
}

void Checkpoint::Release(const TensorView& tensor) const {
  for (const std::shared_ptr<MappedFile>& map : maps_) {
    const std::byte* begin = map->bytes().data();
    if (tensor.data.data() >= begin && tensor.data.data() < begin + map->size()) {
      map->Release(tensor.data);
      return;
    }
  }
}

std::vector<std::string> Checkpoint::Hashes(const std::vector<const TensorView*>& tensors) const {
  std::vector<std::string> hashes(tensors.size());
  ParallelFor(tensors.size(), [&](size_t i) {
    TensorView part = *tensors[i];
    Sha256 hash;
    for (std::span<const std::byte> left = part.data; !left.empty(); left = left.subspan(part.data.size())) {
      part.data = left.first(std::min(left.size(), kHashedBytes));
      hash.Update(part.data);
      Release(part);
    }
    hashes[i] = hash.Hex();
  });
  return hashes;
}

}  // namespace mica
