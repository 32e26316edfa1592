#include "io/container/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <iterator>
#include <optional>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/file_kind.h"
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

// One kind of weight file and what its files are called.
struct Layout {
  const char* name;
  const char* single;
  const char* index;
  std::string_view stem, extension;  // of the shards: STEM-00001-of-00003EXTENSION
  bool torch;
};
constexpr Layout kLayouts[] = {
    {"safetensors", "model.safetensors", "model.safetensors.index.json", "model-", ".safetensors", false},
    {"PyTorch .bin", "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-", ".bin", true},
};

// The numbers in the name of a shard.
struct ShardNumber {
  size_t shard = 0, shards = 0;
};
std::optional<ShardNumber> ShardNumberOf(std::string_view name, const Layout& layout) {
  if (!name.starts_with(layout.stem) || !name.ends_with(layout.extension)) return std::nullopt;
  name.remove_prefix(layout.stem.size());
  name.remove_suffix(std::min(name.size(), layout.extension.size()));
  constexpr std::string_view kOf = "-of-";
  const size_t of = name.find(kOf);
  if (of == std::string_view::npos) return std::nullopt;
  ShardNumber number;
  const auto parse = [](std::string_view digits, size_t& value) {
    const char* const end = digits.data() + digits.size();
    const auto [next, fault] = std::from_chars(digits.data(), end, value);
    return fault == std::errc() && next == end;
  };
  const bool known =
      parse(name.substr(0, of), number.shard) && parse(name.substr(of + kOf.size()), number.shards);
  return known && number.shard >= 1 && number.shard <= number.shards ? std::optional(number) : std::nullopt;
}

std::vector<std::string> NamesIn(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code code;
  for (auto entry = fs::directory_iterator(directory, code); !code && entry != fs::directory_iterator();
       entry.increment(code))
    names.push_back(entry->path().filename().string());
  if (code) Fail("{}: cannot be read ({})", directory.string(), code.message());
  std::sort(names.begin(), names.end());
  return names;
}

// Shards of a layout among `names`, those that are not there, and how many there should be.
struct LooseShards {
  std::vector<std::string> found, missing;
  size_t expected = 0;
};
LooseShards FindShards(const std::vector<std::string>& names, const Layout& layout) {
  LooseShards loose;
  std::map<size_t, std::string> by_number;
  for (const std::string& name : names) {
    const std::optional<ShardNumber> number = ShardNumberOf(name, layout);
    if (!number || (loose.expected != 0 && number->shards != loose.expected)) continue;
    loose.expected = number->shards;
    by_number.emplace(number->shard, name);
  }
  for (size_t shard = 1; shard <= loose.expected; ++shard) {
    const auto found = by_number.find(shard);
    if (found != by_number.end()) {
      loose.found.push_back(found->second);
    } else {
      loose.missing.push_back(
          fmt::format("{}{:05}-of-{:05}{}", layout.stem, shard, loose.expected, layout.extension));
    }
  }
  return loose;
}

bool IsWeightFile(std::string_view name) {
  return name.ends_with(".safetensors") || (name.starts_with("pytorch_model") && name.ends_with(".bin"));
}

// What a directory without weights has that says why.
[[noreturn]] void RefuseWithoutWeights(const fs::path& directory, const std::vector<std::string>& names) {
  for (const Layout& layout : kLayouts) {
    const LooseShards loose = FindShards(names, layout);
    if (loose.expected == 0) continue;
    Fail("{}: has {} of {} shards and no {}; {} is missing, complete the download", directory.string(),
         loose.found.size(), loose.expected, layout.index, loose.missing.front());
  }
  struct Hint {
    std::string_view end, advice;
  };
  constexpr Hint kHints[] = {
      {".incomplete", "is a download that was not finished; fetch it again"},
      {".part", "is a download that was not finished; fetch it again"},
      {".crdownload", "is a download that was not finished; fetch it again"},
      {".aria2", "is the state of a download that was not finished; fetch it again"},
      {"adapter_model.safetensors", "is an adapter; merge it into its base model first"},
      {"adapter_model.bin", "is an adapter; merge it into its base model first"},
      {".gguf", "is another program's format; give the checkpoint in the Hugging Face layout"},
      {".pth", "is in the layout of the original LLaMA; convert it to that of Hugging Face first"},
      {"consolidated.safetensors", "is in Mistral's own layout; fetch the files for Hugging Face as well"},
      {".safetensors", "is none of these; rename it to model.safetensors if it is the whole model"},
      {".bin", "is none of these; rename it to pytorch_model.bin if it is the whole model"},
  };
  std::string found;
  for (const Hint& hint : kHints) {
    const auto name = std::find_if(names.begin(), names.end(),
                                   [&](const std::string& one) { return one.ends_with(hint.end); });
    if (name == names.end()) continue;
    found = fmt::format("; {} {}", Printable(*name), hint.advice);
    break;
  }
  Fail(
      "{}: holds no weights; expected model.safetensors, model.safetensors.index.json, pytorch_model.bin or "
      "pytorch_model.bin.index.json{}",
      directory.string(), found);
}

}  // namespace

void CheckModelDirectory(const fs::path& path) {
  std::error_code code;
  if (!fs::exists(path, code)) {
    if (IsPresent(path)) throw Error(CannotOpen(path, ENOENT));
    Fail("{}: does not exist; give a checkpoint directory", path.string());
  }
  if (!fs::is_directory(path, code))
    Fail("{}: is not a directory; give a checkpoint directory", path.string());
  if (fs::exists(path / kUnfinishedDirectory, code) && !fs::exists(path / kConfigName, code)) {
    Fail(
        "{}: holds a compression that was not finished; run the same mica compress command again to finish "
        "it",
        path.string());
  }
}

std::vector<std::string> MissingShards(const fs::path& directory) {
  const std::vector<std::string> names = NamesIn(directory);
  for (const Layout& layout : kLayouts) {
    if (IsPresent(directory / layout.single)) return {};
    if (IsPresent(directory / layout.index)) {
      const Json json = ReadJson(directory / layout.index);
      std::set<std::string> missing;
      if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) return {};
      for (const auto& [name, shard] : json["weight_map"].items()) {
        if (!shard.is_string() || !IsPlainName(shard.get<std::string>())) return {};
        if (!IsPresent(directory / shard.get<std::string>())) missing.insert(shard.get<std::string>());
      }
      return {missing.begin(), missing.end()};
    }
    const LooseShards loose = FindShards(names, layout);
    if (loose.expected != 0) return loose.missing;
  }
  return {};
}

void Checkpoint::OpenShard(const fs::path& path, bool torch, std::vector<TensorView>& tensors) {
  std::vector<TensorView> found;
  WeightFile weights{.name = path.filename().string(), .bytes = 0, .header = {}};
  if (torch) {
    TorchFile file = OpenTorchFile(path);
    maps_.push_back(std::move(file.map));
    found = std::move(file.tensors);
    for (ZipEntry& entry : file.storages) {
      if (entry.data.empty()) continue;
      const auto storage = std::make_shared<Storage>();
      const std::byte* const begin = entry.data.data();
      storage->entry = std::move(entry);
      storage->file = path.string();
      storages_.emplace(begin, storage);
    }
  } else {
    SafetensorsFile file = OpenSafetensors(path);
    weights.header = file.header;
    maps_.push_back(std::move(file.map));
    found = std::move(file.tensors);
    for (auto& [key, value] : file.metadata) metadata_[key] = std::move(value);
  }
  weights.bytes = maps_.back()->size();
  file_bytes_ += weights.bytes;
  files_.push_back(std::move(weights));
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
    if (!IsPresent(path)) {
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

// Shards 1 to N, whose headers say everything that an index would.
void Checkpoint::OpenWithoutIndex(const std::vector<fs::path>& shards, bool torch) {
  std::unordered_map<std::string, std::string> shard_of;
  for (const fs::path& path : shards) {
    std::vector<TensorView> found;
    OpenShard(path, torch, found);
    for (const TensorView& tensor : found) {
      const auto [other, is_new] = shard_of.emplace(tensor.name, path.filename().string());
      if (!is_new)
        Fail("{}: tensor {} is in {} as well; fetch the index of the checkpoint", path.string(),
             Printable(tensor.name), other->second);
    }
    std::move(found.begin(), found.end(), std::back_inserter(tensors_));
  }
  layout_ += fmt::format(", {} shard{}, no index", shards.size(), shards.size() == 1 ? "" : "s");
}

Checkpoint Checkpoint::Open(const fs::path& path, bool packed) {
  Checkpoint checkpoint;
  std::error_code code;
  if (fs::exists(path, code) && !fs::is_directory(path, code)) {
    const std::string extension = path.extension().string();
    const bool torch = extension == ".bin" || extension == ".pt" || extension == ".pth";
    if (!torch && extension != ".safetensors") {
      Fail("{}: is not a checkpoint; expected a directory or a .safetensors or .bin file", path.string());
    }
    checkpoint.directory_ = path.has_parent_path() ? path.parent_path() : fs::path(".");
    checkpoint.layout_ = kLayouts[torch ? 1 : 0].name;
    checkpoint.OpenShard(path, torch, checkpoint.tensors_);
  } else {
    CheckModelDirectory(path);
    checkpoint.directory_ = path;
    const std::vector<std::string> names = NamesIn(path);
    bool opened = false;
    for (const Layout& layout : kLayouts) {
      checkpoint.layout_ = layout.name;
      const LooseShards loose = FindShards(names, layout);
      opened = true;
      const bool has_index = IsPresent(path / layout.index);
      if (IsPresent(path / layout.single) && !(packed && has_index)) {
        checkpoint.OpenShard(path / layout.single, layout.torch, checkpoint.tensors_);
      } else if (has_index) {
        checkpoint.OpenSharded(path / layout.index, layout.torch);
      } else if (loose.expected != 0 && loose.missing.empty()) {
        std::vector<fs::path> shards;
        for (const std::string& name : loose.found) shards.push_back(path / name);
        checkpoint.OpenWithoutIndex(shards, layout.torch);
      } else {
        opened = false;
      }
      if (opened) break;
    }
    if (!opened) RefuseWithoutWeights(path, names);
    for (const std::string& name : names) {
      const bool read = std::any_of(checkpoint.files_.begin(), checkpoint.files_.end(),
                                    [&](const WeightFile& file) { return file.name == name; });
      if (IsWeightFile(name) && !read) checkpoint.unread_files_.push_back(name);
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

void Checkpoint::Verify(const TensorView& tensor) const {
  auto found = storages_.upper_bound(tensor.data.data());
  if (tensor.data.empty() || found == storages_.begin()) return;
  Storage& storage = *std::prev(found)->second;
  std::call_once(storage.verified, [&] { CheckCrc(storage.entry, storage.file); });
}

void Checkpoint::Release(const TensorView& tensor) const {
  for (const std::shared_ptr<MappedFile>& map : maps_) {
    const std::byte* begin = map->bytes().data();
    if (tensor.data.data() >= begin && tensor.data.data() < begin + map->size()) {
      map->Release(tensor.data);
      map->CheckUnchanged();
      return;
    }
  }
}

std::vector<std::string> Checkpoint::Hashes(
    const std::vector<const TensorView*>& tensors,
    const std::function<bool(const TensorView&)>& must_be_finite) const {
  std::vector<std::string> hashes(tensors.size());
  ParallelFor(tensors.size(), [&](size_t i) {
    const TensorView& tensor = *tensors[i];
    TensorView part = tensor;
    const bool finite = must_be_finite && must_be_finite(tensor);
    const size_t element = DTypeBytes(part.dtype);
    uint64_t first = 0;
    Verify(tensor);
    Sha256 hash;
    for (std::span<const std::byte> left = part.data; !left.empty(); left = left.subspan(part.data.size())) {
      part.data = left.first(std::min(left.size(), kHashedBytes));
      hash.Update(part.data);
      if (finite) CheckFinite(tensor, first, part.data.size() / element);
      first += part.data.size() / element;
      Release(part);
    }
    hashes[i] = hash.Hex();
  });
  return hashes;
}

}  // namespace mica
