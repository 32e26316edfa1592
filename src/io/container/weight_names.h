// What the weight files of a checkpoint directory are called, and which of them are there.
#pragma once

#include <compare>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mica {

// Whether the name is of a file in the same directory: a shard's comes from the index, so it may name nothing
// outside.
bool IsPlainName(const std::string& name);

// Of all entries of a directory, sorted. Throws Error.
std::vector<std::string> NamesIn(const std::filesystem::path& directory);

// One kind of weight file and what its files are called.
struct WeightLayout {
  const char* name;
  const char* single;
  const char* index;
  std::string_view stem, extension;  // of the shards: STEM-00001-of-00003EXTENSION
  bool torch;
};
// In the order of Hugging Face's loader: the first that is there counts.
inline constexpr WeightLayout kWeightLayouts[] = {
    {"safetensors", "model.safetensors", "model.safetensors.index.json", "model-", ".safetensors", false},
    {"PyTorch .bin", "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-", ".bin", true},
};

// Shards of a layout among `names`, those that are not there, and how many there should be.
struct LooseShards {
  std::vector<std::string> found, missing;
  size_t expected = 0;
};
LooseShards FindShards(const std::vector<std::string>& names, const WeightLayout& layout);

inline constexpr std::string_view kGgufExtension = ".gguf";

// What a part of a split GGUF model is called: STEM00001-of-00003.gguf. `shards` 0: one file, the whole STEM.
struct GgufName {
  std::string stem;
  size_t shards = 0;
  auto operator<=>(const GgufName&) const = default;
  std::string part(size_t number) const;  // from 1
};
GgufName GgufNameOf(const std::string& name);
// The GGUF models among the files of a directory, each once.
std::vector<GgufName> GgufModels(const std::vector<std::string>& names);
// All files of the model in `directory`.
std::vector<std::filesystem::path> GgufFiles(const std::filesystem::path& directory, const GgufName& model);

bool IsWeightFile(std::string_view name);

// Throws Error: what a directory without weights has that says why.
[[noreturn]] void RefuseWithoutWeights(const std::filesystem::path& directory,
                                       const std::vector<std::string>& names);

}  // namespace mica
