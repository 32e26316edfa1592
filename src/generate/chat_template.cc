#include "generate/chat_template.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/text.h"
#include "model/gguf/keys.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kKey = "tokenizer.chat_template";
constexpr const char* kTokenKeys[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                      "sep_token", "cls_token", "mask_token"};

Json ReadIfThere(const fs::path& path) {
  Json json = IsPresent(path) ? ReadJson(path) : Json::object();
  if (!json.is_object()) Fail("{}: is {}, expected an object", path.string(), json.type_name());
  return json;
}

// The text of a token that is given as one or as an object; null for anything else.
Json TokenText(const Json& token) {
  if (token.is_string()) return token;
  if (token.is_object() && token.contains("content") && token["content"].is_string()) return token["content"];
  return nullptr;
}

// Those of tokenizer_config.json; what it does not say special_tokens_map.json may.
Json SpecialTokensOf(const fs::path& directory) {
  Json tokens = Json::object();
  for (const char* file : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const Json json = ReadIfThere(directory / file);
    for (const char* key : kTokenKeys) {
      if (tokens.contains(key) || !json.contains(key)) continue;
      if (Json text = TokenText(json[key]); !text.is_null()) tokens[key] = std::move(text);
    }
    constexpr const char* kMore = "additional_special_tokens";
    if (tokens.contains(kMore) || !json.contains(kMore) || !json[kMore].is_array()) continue;
    Json more = Json::array();
    for (const Json& token : json[kMore]) {
      if (Json text = TokenText(token); !text.is_null()) more.push_back(std::move(text));
    }
    tokens[kMore] = std::move(more);
  }
  // What transformers' tokenizer of such files has where nothing is said.
  if (IsPresent(directory / "tokenizer.model") && !IsPresent(directory / "tokenizer_config.json")) {
    const std::pair<const char*, const char*> kDefaults[] = {
        {"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}};
    for (const auto& [key, text] : kDefaults) {
      if (!tokens.contains(key)) tokens[key] = text;
    }
  }
  return tokens;
}

Json SpecialTokensIn(const std::vector<GgufKey>& keys) {
  Json found = Json::object();
  const GgufValue* tokens = FindKey(keys, "tokenizer.ggml.tokens");
  const auto* array = tokens == nullptr ? nullptr : std::get_if<GgufArray>(tokens);
  const auto* texts = array == nullptr ? nullptr : std::get_if<std::vector<std::string>>(&array->elements);
  if (texts == nullptr) return found;
  const std::pair<const char*, const char*> kIds[] = {{"bos_token", "bos_token_id"},
                                                      {"eos_token", "eos_token_id"},
                                                      {"unk_token", "unknown_token_id"},
                                                      {"pad_token", "padding_token_id"}};
  for (const auto& [name, key] : kIds) {
    const GgufValue* value = FindKey(keys, fmt::format("tokenizer.ggml.{}", key));
    const std::optional<int64_t> id = value == nullptr ? std::nullopt : WholeNumberOf(*value);
    if (!id || *id < 0 || static_cast<uint64_t>(*id) >= texts->size()) continue;
    const std::string& text = (*texts)[static_cast<size_t>(*id)];
    if (FirstInvalidUtf8(text) == std::string_view::npos) found[name] = text;
  }
  return found;
}

[[noreturn]] void RefuseWithout(const std::string& model, const char* looked_for) {
  Fail(
      "{}: has no chat template (looked for {}); it is a base model, or the template is missing: put it "
      "beside the "
      "weights as chat_template.jinja, or have a plain text continued (mica generate)",
      model, looked_for);
}

constexpr const char* kFiles =
    "chat_template.jinja, chat_template in tokenizer_config.json, chat_template.json";

}  // namespace

Json MessagesJson(const std::vector<ChatMessage>& messages) {
  Json json = Json::array();
  for (const ChatMessage& message : messages)
    json.push_back({{"role", message.role}, {"content", message.content}});
  return json;
}

std::string TextOf(const std::vector<ChatSegment>& segments) {
  std::string text;
  for (const ChatSegment& segment : segments) text += segment.text;
  return text;
}

void ChatTemplate::Add(const std::string& name, const std::string& where, std::string source) {
  for (const Named& one : templates_) {
    if (one.name == name) return;
  }
  jinja::Template parsed(source, where);
  templates_.push_back({name, where, std::move(source), std::move(parsed)});
}

void ChatTemplate::AddGivenIn(const Json& json, const std::string& where) {
  if (!json.contains("chat_template") || json["chat_template"].is_null()) return;
  const Json& given = json["chat_template"];
  const std::string place = where + ": chat_template";
  if (given.is_string()) {
    Add("default", place, given);
    return;
  }
  // Several by name; transformers reads the object, too.
  const auto add = [&](const std::string& name, const Json& source) {
    if (!source.is_string())
      Fail("{}: \"{}\" is {}, expected text", place, Printable(name), source.type_name());
    Add(name, fmt::format("{} \"{}\"", place, Printable(name)), source);
  };
  if (given.is_object()) {
    for (const auto& [name, source] : given.items()) add(name, source);
    return;
  }
  if (!given.is_array()) Fail("{}: is {}, expected text or a list of templates", place, given.type_name());
  for (const Json& one : given) {
    if (!one.is_object() || !one.contains("name") || !one["name"].is_string() || !one.contains("template"))
      Fail("{}: an element of the list is no object of name and template", place);
    add(one["name"], one["template"]);
  }
}

bool ChatTemplate::AddFilesOf(const fs::path& directory) {
  const fs::path jinja = directory / "chat_template.jinja";
  if (IsPresent(jinja)) {
    Add("default", jinja.string(), ReadFile(jinja));
    const fs::path more = directory / "additional_chat_templates";
    std::vector<fs::path> files;
    if (fs::is_directory(more)) {
      for (const fs::directory_entry& entry : fs::directory_iterator(more)) {
        if (entry.path().extension() == ".jinja") files.push_back(entry.path());
      }
    }
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) Add(file.stem().string(), file.string(), ReadFile(file));
    return true;
  }
  for (const char* name : {"tokenizer_config.json", "chat_template.json"}) {
    if (templates_.empty()) AddGivenIn(ReadIfThere(directory / name), (directory / name).string());
  }
  return !templates_.empty();
}

bool ChatTemplate::AddGgufTemplates(const std::vector<GgufKey>& keys, const std::string& where) {
  const std::string prefix = fmt::format("{}.", kKey);
  for (const GgufKey& key : keys) {
    const bool named = key.name.starts_with(prefix);
    if (key.name != kKey && !named) continue;
    const auto* text = std::get_if<std::string>(&key.value);
    const std::string place = fmt::format("{}: key {}", where, Printable(key.name));
    if (text == nullptr) Fail("{} is of type {}, expected STRING", place, ValueTypeName(key.value));
    Add(named ? key.name.substr(prefix.size()) : std::string("default"), place, *text);
  }
  return !templates_.empty();
}

void ChatTemplate::PutDefaultFirst() {
  std::stable_partition(templates_.begin(), templates_.end(),
                        [](const Named& one) { return one.name == "default"; });
}

ChatTemplate ChatTemplate::FromKeys(const std::vector<GgufKey>& keys, const std::string& where) {
  ChatTemplate found;
  if (!found.AddGgufTemplates(keys, where)) RefuseWithout(where, "key tokenizer.chat_template");
  found.special_tokens_ = SpecialTokensIn(keys);
  found.PutDefaultFirst();
  return found;
}

ChatTemplate ChatTemplate::OpenDirectory(const fs::path& directory) {
  ChatTemplate found;
  found.special_tokens_ = SpecialTokensOf(directory);
  const bool from_files = found.AddFilesOf(directory);
  // A GGUF model whose weights were written in another form keeps its vocabulary in a file.
  if (const fs::path kept = directory / kVocabularyFile; IsPresent(kept)) {
    const std::vector<GgufKey> keys = OpenGguf(kept).keys;
    if (found.special_tokens_.empty()) found.special_tokens_ = SpecialTokensIn(keys);
    if (!from_files) found.AddGgufTemplates(keys, kept.string());
  }
  if (found.templates_.empty()) RefuseWithout(directory.string(), kFiles);
  found.PutDefaultFirst();
  return found;
}

ChatTemplate ChatTemplate::Open(const Checkpoint& checkpoint) {
  const std::vector<GgufKey>* keys = checkpoint.gguf();
  if (keys == nullptr) return OpenDirectory(checkpoint.directory());
  const std::string file = GgufFileName(checkpoint);
  if (FindKey(*keys, kKey) != nullptr) return FromKeys(*keys, file);
  const fs::path beside = checkpoint.directory() / "chat_template.jinja";
  if (!IsPresent(beside)) return FromKeys(*keys, file);
  ChatTemplate found;
  found.special_tokens_ = SpecialTokensIn(*keys);
  found.Add("default", beside.string(), ReadFile(beside));
  return found;
}

std::vector<ChatSegment> ChatTemplate::Render(const ChatRequest& request) const {
  if (!request.messages.is_array())
    Fail("the messages are {}, expected an array", request.messages.type_name());
  for (const Json& message : request.messages) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string())
      Fail("a message is no object with a text under \"role\"");
  }
  if (!request.variables.is_object())
    Fail("the template's variables are {}, expected an object", request.variables.type_name());
  const Named* chosen = &templates_.front();
  if (!request.tools.is_null()) {
    for (const Named& one : templates_) {
      if (one.name == "tool_use") chosen = &one;
    }
  }
  std::vector<jinja::Variable> variables;
  for (const auto& [name, text] : special_tokens_.items())
    variables.push_back({name, text, jinja::Marks::kNone});
  variables.push_back({"messages", request.messages, jinja::Marks::kMessages});
  variables.push_back({"tools", request.tools, jinja::Marks::kAll});
  variables.push_back({"documents", nullptr, jinja::Marks::kNone});
  variables.push_back({"add_generation_prompt", request.add_generation_prompt, jinja::Marks::kNone});
  for (const auto& [name, value] : request.variables.items())
    variables.push_back({name, value, jinja::Marks::kAll});

  const jinja::Text text = chosen->parsed.Render(variables, request.now);
  std::vector<ChatSegment> segments;
  size_t begin = 0;
  for (const jinja::Text::Run& run : text.runs()) {
    segments.push_back({text.bytes().substr(begin, run.end - begin), run.content});
    begin = run.end;
  }
  return segments;
}

}  // namespace mica
