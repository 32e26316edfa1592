#include "io/container/weight_names.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "io/container/checkpoint.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

// The numbers in the name of a shard.
struct ShardNumber {
  size_t shard = 0, shards = 0;
};
std::optional<ShardNumber> ShardNumberOf(std::string_view name, std::string_view stem,
                                         std::string_view extension) {
  if (!name.starts_with(stem) || !name.ends_with(extension)) return std::nullopt;
  name.remove_prefix(stem.size());
  name.remove_suffix(std::min(name.size(), extension.size()));
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

}  // namespace

bool IsPlainName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
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

LooseShards FindShards(const std::vector<std::string>& names, const WeightLayout& layout) {
  LooseShards loose;
  std::map<size_t, std::string> by_number;
  for (const std::string& name : names) {
    const std::optional<ShardNumber> number = ShardNumberOf(name, layout.stem, layout.extension);
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

std::string GgufName::part(size_t number) const {
  return shards == 0 ? stem : fmt::format("{}{:05}-of-{:05}{}", stem, number, shards, kGgufExtension);
}

GgufName GgufNameOf(const std::string& name) {
  constexpr size_t kNumbers = std::string_view("00001-of-00003.gguf").size();
  if (name.size() <= kNumbers) return {name, 0};
  const std::string stem = name.substr(0, name.size() - kNumbers);
  const std::optional<ShardNumber> number = ShardNumberOf(name, stem, kGgufExtension);
  return number && stem.ends_with('-') ? GgufName{stem, number->shards} : GgufName{name, 0};
}

std::vector<GgufName> GgufModels(const std::vector<std::string>& names) {
  std::set<GgufName> models;
  for (const std::string& name : names) {
    if (name.ends_with(kGgufExtension) && name != kVocabularyFile) models.insert(GgufNameOf(name));
  }
  return {models.begin(), models.end()};
}

std::vector<fs::path> GgufFiles(const fs::path& directory, const GgufName& model) {
  std::vector<fs::path> files;
  for (size_t part = 1; part <= std::max<size_t>(1, model.shards); ++part)
    files.push_back(directory / model.part(part));
  return files;
}

bool IsWeightFile(std::string_view name) {
  return name.ends_with(".safetensors") || (name.starts_with("pytorch_model") && name.ends_with(".bin"));
}

void RefuseWithoutWeights(const fs::path& directory, const std::vector<std::string>& names) {
  for (const WeightLayout& layout : kWeightLayouts) {
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

}  // namespace mica
