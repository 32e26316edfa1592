#include "io/text/tokenizer_companions.h"

#include <charconv>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/json.h"
#include "base/text.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kConfigName = "tokenizer_config.json";
constexpr const char* kAddedName = "added_tokens.json";
constexpr int64_t kMaxId = int64_t{1} << 24;

int32_t CheckedId(const std::string& where, const std::string& token, int64_t id) {
  if (token.empty() || id < 0 || id >= kMaxId)
    Fail("{}: token \"{}\" has id {}, expected a name and an id from 0 to {}", where, Printable(token), id,
         kMaxId - 1);
  return static_cast<int32_t>(id);
}

// Flags that are there; others are read as none.
bool FlagOf(const Json& token, const char* name, bool otherwise) {
  return token.contains(name) && token[name].is_boolean() ? token[name].get<bool>() : otherwise;
}

}  // namespace

TokenizerCompanions ReadTokenizerCompanions(const fs::path& directory) {
  TokenizerCompanions companions;
  if (IsPresent(directory / kConfigName)) {
    const std::string where = (directory / kConfigName).string();
    const Json json = ReadJson(directory / kConfigName);
    JsonReader reader(json, where);
    if (const Json* flag = reader.Find("add_bos_token"); flag != nullptr && !flag->is_null())
      reader.Read("add_bos_token", companions.adds_bos.emplace());
    if (const Json* bos = reader.Find("bos_token"); bos != nullptr) {
      const Json* content = bos->is_object() && bos->contains("content") ? &(*bos)["content"] : bos;
      if (content->is_string()) companions.bos = content->get<std::string>();
    }
    const Json* decoder = reader.Find("added_tokens_decoder");
    if (decoder != nullptr && decoder->is_object()) {
      for (const auto& [id, token] : decoder->items()) {
        int64_t number = -1;
        std::from_chars(id.data(), id.data() + id.size(), number);
        if (!token.is_object() || !token.contains("content") || !token["content"].is_string()) continue;
        AddedToken added;
        added.content = token["content"].get<std::string>();
        added.id = CheckedId(where, added.content, number);
        added.special = FlagOf(token, "special", false);
        added.single_word = FlagOf(token, "single_word", false);
        added.lstrip = FlagOf(token, "lstrip", false);
        added.rstrip = FlagOf(token, "rstrip", false);
        added.normalized = FlagOf(token, "normalized", !added.special);
        companions.added.push_back(std::move(added));
      }
    }
  }
  if (IsPresent(directory / kAddedName)) {
    const std::string where = (directory / kAddedName).string();
    const Json json = ReadJson(directory / kAddedName);
    if (!json.is_object()) Fail("{}: is {}, expected an object of tokens and ids", where, json.type_name());
    for (const auto& [token, id] : json.items()) {
      AddedToken added;
      added.content = token;
      added.id = CheckedId(where, token, id.is_number_integer() ? id.get<int64_t>() : -1);
      added.normalized = true;
      companions.added.push_back(std::move(added));
    }
  }
  return companions;
}

}  // namespace mica
