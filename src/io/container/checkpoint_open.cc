// How a checkpoint is opened, whatever its files are.
#include <algorithm>
#include <cerrno>
#include <iterator>
#include <optional>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/json.h"
#include "base/text.h"
#include "io/container/checkpoint.h"
#include "io/container/hub_cache.h"
#include "io/container/safetensors.h"
#include "io/container/torch_file.h"
#include "io/container/weight_names.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kConfigName = "config.json";

// The types of values that stand each by itself; blocks have none.
std::optional<DType> PlainType(GgmlType type) {
  switch (type) {
    case GgmlType::kF64:
      return DType::kF64;
    case GgmlType::kF32:
      return DType::kF32;
    case GgmlType::kF16:
      return DType::kF16;
    case GgmlType::kBF16:
      return DType::kBF16;
    case GgmlType::kI64:
      return DType::kI64;
    case GgmlType::kI32:
      return DType::kI32;
    case GgmlType::kI16:
      return DType::kI16;
    case GgmlType::kI8:
      return DType::kI8;
    default:
      return std::nullopt;
  }
}

// "Q4_K and Q6_K": the types of the matrices, the one with most bytes first.
std::string TypesOfMatrices(const std::vector<TensorView>& tensors) {
  std::map<std::string, uint64_t> bytes;
  for (const TensorView& tensor : tensors) {
    if (tensor.shape.size() > 1) bytes[TypeName(tensor)] += tensor.data.size();
  }
  std::vector<std::pair<std::string, uint64_t>> types(bytes.begin(), bytes.end());
  std::stable_sort(types.begin(), types.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (size_t i = 0; i < types.size(); ++i)
    text += (i == 0 ? "" : i + 1 < types.size() ? ", " : " and ") + types[i].first;
  return text;
}

// Throws Error unless the keys of one of `parts` files say what its name does.
void CheckPart(const GgufFile& file, const std::string& where, size_t part, size_t parts) {
  const auto number = [&](const char* key, int64_t otherwise) {
    const GgufValue* value = FindKey(file.keys, key);
    if (value == nullptr) return otherwise;
    const std::optional<int64_t> whole = WholeNumberOf(*value);
    if (!whole) Fail("{}: key {} has type {}, expected a whole number", where, key, ValueTypeName(*value));
    return *whole;
  };
  const int64_t no = number("split.no", 0), count = number("split.count", 1);
  if (std::cmp_equal(no, part) && (std::cmp_equal(count, parts) || (count == 0 && parts == 1))) return;
  Fail(
      "{}: is part {} of {} by its keys split.no and split.count, {} of {} by its name; expected all parts "
      "under the names NAME-00001-of-0000N.gguf that they were written with",
      where, no + 1, count, part + 1, parts);
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

bool IsGgufModel(const fs::path& given) {
  const fs::path path = SnapshotOf(given);
  std::error_code code;
  if (!fs::is_directory(path, code)) return path.extension() == kGgufExtension;
  const std::vector<std::string> names = NamesIn(path);
  for (const WeightLayout& layout : kWeightLayouts) {
    if (IsPresent(path / layout.single) || IsPresent(path / layout.index) ||
        FindShards(names, layout).expected != 0)
      return false;
  }
  return !GgufModels(names).empty();
}

std::vector<std::string> MissingShards(const fs::path& path) {
  const fs::path directory = SnapshotOf(path);
  const std::vector<std::string> names = NamesIn(directory);
  if (IsGgufModel(directory)) {
    std::vector<std::string> missing;
    for (const GgufName& model : GgufModels(names)) {
      for (const fs::path& file : GgufFiles(directory, model)) {
        if (!IsPresent(file)) missing.push_back(file.filename().string());
      }
    }
    return missing;
  }
  for (const WeightLayout& layout : kWeightLayouts) {
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

void Checkpoint::OpenGgufFiles(const std::vector<fs::path>& files) {
  std::unordered_map<std::string, std::string> file_of;
  size_t announced = 0;
  for (size_t part = 0; part < files.size(); ++part) {
    const std::string where = files[part].string();
    if (!IsPresent(files[part]) && files.size() > 1)
      Fail("{}: is missing, part {} of {}; complete the download", where, part + 1, files.size());
    GgufFile file = OpenGguf(files[part]);
    CheckPart(file, where, part, files.size());
    if (const GgufValue* count = FindKey(file.keys, "split.tensors.count"); count != nullptr && part == 0)
      announced = static_cast<size_t>(WholeNumberOf(*count).value_or(0));
    for (GgufTensor& tensor : file.tensors) {
      const auto [other, is_new] = file_of.emplace(tensor.name, where);
      if (!is_new) Fail("{}: tensor {} is in {} as well", where, Printable(tensor.name), other->second);
      const std::optional<DType> plain = PlainType(tensor.type);
      tensors_.push_back({.name = std::move(tensor.name),
                          .dtype = plain.value_or(DType::kU8),
                          .shape = std::move(tensor.shape),
                          .data = tensor.data,
                          .file = where,
                          .blocks = plain ? nullptr : &FactsOf(tensor.type)});
    }
    file_bytes_ += file.map->size();
    files_.push_back({.name = files[part].filename().string(), .bytes = file.map->size(), .header = {}});
    maps_.push_back(std::move(file.map));
    if (part == 0) gguf_ = std::make_shared<const std::vector<GgufKey>>(std::move(file.keys));
  }
  if (files.size() > 1 && announced != 0 && announced != tensors_.size()) {
    Fail("{}: announces {} tensors in all parts by its key split.tensors.count, found {}; fetch them again",
         files[0].string(), announced, tensors_.size());
  }
  layout_ = "GGUF";
  if (const std::string types = TypesOfMatrices(tensors_); !types.empty()) layout_ += ", " + types;
  if (files.size() > 1) layout_ += fmt::format(", {} files", files.size());
}

void Checkpoint::OpenSingle(const fs::path& path) {
  directory_ = path.has_parent_path() ? path.parent_path() : fs::path(".");
  const std::string extension = path.extension().string();
  if (extension == kGgufExtension)
    return OpenGgufFiles(GgufFiles(directory_, GgufNameOf(path.filename().string())));
  const bool torch = extension == ".bin" || extension == ".pt" || extension == ".pth";
  if (!torch && extension != ".safetensors")
    Fail("{}: is not a checkpoint; expected a directory or a .safetensors, .bin or .gguf file",
         path.string());
  layout_ = kWeightLayouts[torch ? 1 : 0].name;
  OpenShard(path, torch, tensors_);
}

void Checkpoint::OpenDirectory(const fs::path& path, bool packed) {
  CheckModelDirectory(path);
  directory_ = path;
  const std::vector<std::string> names = NamesIn(path);
  bool opened = false;
  for (const WeightLayout& layout : kWeightLayouts) {
    layout_ = layout.name;
    const LooseShards loose = FindShards(names, layout);
    opened = true;
    const bool has_index = IsPresent(path / layout.index);
    if (IsPresent(path / layout.single) && !(packed && has_index)) {
      OpenShard(path / layout.single, layout.torch, tensors_);
    } else if (has_index) {
      OpenSharded(path / layout.index, layout.torch);
    } else if (loose.expected != 0 && loose.missing.empty()) {
      std::vector<fs::path> shards;
      for (const std::string& name : loose.found) shards.push_back(path / name);
      OpenWithoutIndex(shards, layout.torch);
    } else {
      opened = false;
    }
    if (opened) break;
  }
  if (!opened && IsGgufModel(path)) {
    const std::vector<GgufName> models = GgufModels(names);
    if (models.size() > 1) {
      Fail("{}: holds {} GGUF models, {} and {} among them; give the path of the file that is wanted",
           path.string(), models.size(), Printable(models[0].part(1)), Printable(models[1].part(1)));
    }
    OpenGgufFiles(GgufFiles(path, models[0]));
    opened = true;
  }
  if (!opened) RefuseWithoutWeights(path, names);
  for (const std::string& name : names) {
    const bool read =
        std::any_of(files_.begin(), files_.end(), [&](const WeightFile& file) { return file.name == name; });
    if (IsWeightFile(name) && !read) unread_files_.push_back(name);
  }
}

Checkpoint Checkpoint::Open(const fs::path& given, bool packed) {
  const fs::path path = SnapshotOf(given);
  Checkpoint checkpoint;
  std::error_code code;
  const bool is_file = fs::exists(path, code) && !fs::is_directory(path, code);
  is_file ? checkpoint.OpenSingle(path) : checkpoint.OpenDirectory(path, packed);
  checkpoint.SortTensors();
  return checkpoint;
}

}  // namespace mica
