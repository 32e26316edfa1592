#include "generate/end_tokens.h"

#include <string>
#include <vector>

#include "base/json.h"
#include "io/container/gguf.h"
#include "io/container/hub_cache.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

// A number or a list of numbers.
void AddIds(const Json& value, std::set<int32_t>& ids) {
  if (value.is_number_integer()) ids.insert(value.get<int32_t>());
  if (!value.is_array()) return;
  for (const Json& id : value) AddIds(id, ids);
}

void AddIdsOf(const Json& object, std::set<int32_t>& ids) {
  if (object.is_object() && object.contains("eos_token_id")) AddIds(object.at("eos_token_id"), ids);
}

}  // namespace

std::set<int32_t> EndTokens(const ModelWeights& weights, const fs::path& path, const Tokenizer& tokenizer) {
  std::set<int32_t> ids;
  AddIdsOf(weights.config().json, ids);
  if (const auto* keys = weights.checkpoint().gguf()) {
    for (const char* name : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      const GgufValue* value = FindKey(*keys, name);
      const std::optional<int64_t> id = value == nullptr ? std::nullopt : WholeNumberOf(*value);
      if (id) ids.insert(static_cast<int32_t>(*id));
    }
  }
  const fs::path model = SnapshotOf(path);
  const fs::path directory = fs::is_directory(model) ? model : model.parent_path();
  if (fs::exists(directory / "generation_config.json"))
    AddIdsOf(ReadJson(directory / "generation_config.json"), ids);
  if (fs::exists(directory / "tokenizer_config.json")) {
    const Json json = ReadJson(directory / "tokenizer_config.json");
    const std::string key = "eos_token";
    Json token = json.is_object() && json.contains(key) ? json.at(key) : Json();
    if (token.is_object() && token.contains("content")) token = token.at("content");
    if (token.is_string()) {
      const std::vector<int32_t> of_text = tokenizer.EncodeWithSpecial(token.get<std::string>());
      if (of_text.size() == 1) ids.insert(of_text[0]);
    }
  }
  std::erase_if(ids, [&](int32_t id) { return id < 0 || static_cast<size_t>(id) >= weights.config().vocab; });
  return ids;
}

}  // namespace mica
