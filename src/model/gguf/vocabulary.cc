#include "model/gguf/vocabulary.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <optional>
#include <unordered_set>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "model/gguf/sentencepiece_file.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "tokenizer.";
constexpr int32_t kControl = 3, kUserDefined = 4, kUnused = 5;  // types of tokens
constexpr float kScoreOfAdded = -1000.0f;
constexpr std::string_view kBlank = "\u2581";

Json ReadIfThere(const fs::path& path) {
  Json json = IsPresent(path) ? ReadJson(path) : Json::object();
  if (!json.is_object()) Fail("{}: is {}, expected an object", path.string(), json.type_name());
  return json;
}

// The template of a conversation, from the files that transformers looks at; empty when there is none.
std::string ChatTemplate(const fs::path& directory, const Json& tokenizer_config) {
  const auto in = [](const Json& json) -> std::string {
    if (!json.contains("chat_template")) return "";
    const Json& given = json["chat_template"];
    if (given.is_string()) return given;
    if (!given.is_array()) return "";
    for (const Json& one : given) {  // several by name
      if (one.is_object() && one.value("name", Json()) == "default" && one.contains("template") &&
          one["template"].is_string())
        return one["template"];
    }
    return "";
  };
  if (IsPresent(directory / "chat_template.jinja")) return ReadFile(directory / "chat_template.jinja");
  std::string text = in(tokenizer_config);
  return text.empty() ? in(ReadIfThere(directory / "chat_template.json")) : text;
}

// Tokens by id while they are collected.
struct Tokens {
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> types;

  void Add(std::string text, float score, int32_t type) {
    texts.push_back(std::move(text));
    scores.push_back(score);
    types.push_back(type);
  }
};

// A token that stands beside the model's pieces.
struct AddedToken {
  int64_t id = 0;
  std::string text;
  bool special = false;
};

std::vector<AddedToken> AddedTokens(const fs::path& directory, const Json& tokenizer_config) {
  std::vector<AddedToken> added;
  const Json of_file = ReadIfThere(directory / "added_tokens.json");
  for (const auto& [text, id] : of_file.items()) {
    if (id.is_number_integer()) added.push_back({id.get<int64_t>(), text, false});
  }
  if (!tokenizer_config.contains("added_tokens_decoder")) return added;
  const Json& decoder = tokenizer_config["added_tokens_decoder"];
  if (!decoder.is_object()) return added;
  for (const auto& [id, token] : decoder.items()) {
    AddedToken one{.id = -1, .text = {}, .special = false};
    std::from_chars(id.data(), id.data() + id.size(), one.id);
    if (!token.is_object() || !token.contains("content") || !token["content"].is_string()) continue;
    one.text = token["content"];
    one.special = token.value("special", Json(false)) == true;
    added.push_back(std::move(one));
  }
  return added;
}

// The text with blanks as they are.
std::string WithBlanks(std::string_view text) {
  std::string result;
  for (size_t at; (at = text.find(kBlank)) != std::string_view::npos; text.remove_prefix(at + kBlank.size()))
    result.append(text.substr(0, at)).append(1, ' ');
  return result.append(text);
}

// As many tokens as the model has rows.
Tokens TokensOf(const SentencePieceFile& file, const std::vector<AddedToken>& added, size_t rows,
                const std::string& where) {
  if (file.pieces.size() > rows)
    Fail("{}: has {} pieces, the model a vocabulary of {}; they do not belong together", where,
         file.pieces.size(), rows);
  Tokens tokens;
  for (const SentencePiece& piece : file.pieces) tokens.Add(piece.text, piece.score, piece.type);
  for (size_t id = tokens.texts.size(); id < rows; ++id)
    tokens.Add(fmt::format("[PAD{}]", id), kScoreOfAdded, kUnused);
  for (const AddedToken& one : added) {
    if (one.id < static_cast<int64_t>(file.pieces.size())) continue;  // a piece keeps its type
    if (one.id >= static_cast<int64_t>(rows)) {
      Fail("{}: token \"{}\" beside it has id {}, the model a vocabulary of {}; they do not belong together",
           where, Printable(one.text), one.id, rows);
    }
    tokens.texts[static_cast<size_t>(one.id)] = WithBlanks(one.text);
    tokens.types[static_cast<size_t>(one.id)] = one.special ? kControl : kUserDefined;
  }
  std::unordered_set<std::string_view> seen;
  for (const std::string& text : tokens.texts) {
    if (!seen.insert(text).second)
      Fail("{}: token \"{}\" stands there twice, with the files beside it; a GGUF file has each once", where,
           Printable(text));
  }
  return tokens;
}

void Put(std::vector<GgufKey>& keys, std::string_view name, GgufValue value) {
  keys.push_back({fmt::format("{}ggml.{}", kPrefix, name), std::move(value)});
}

std::vector<GgufKey> SentencePieceKeys(const fs::path& directory, const ModelConfig& config) {
  const fs::path path = directory / "tokenizer.model";
  const std::string where = path.string();
  const SentencePieceFile file = ParseSentencePieceFile(ReadFile(path), where);
  if (!file.merges) {
    Fail("{}: is a unigram model of SentencePiece, which GGUF files of this architecture cannot hold; supported "
         "are its BPE models",
         where);
  }
  const Json settings = ReadIfThere(directory / "tokenizer_config.json");
  Tokens tokens = TokensOf(file, AddedTokens(directory, settings), config.vocab, where);
  std::vector<GgufKey> keys;
  Put(keys, "model", std::string("llama"));
  Put(keys, "pre", std::string("default"));
  Put(keys, "tokens", GgufArray{std::move(tokens.texts)});
  Put(keys, "scores", GgufArray{std::move(tokens.scores)});
  Put(keys, "token_type", GgufArray{std::move(tokens.types)});
  const auto put_id = [&](const char* name, int64_t id) {
    if (id >= 0 && static_cast<uint64_t>(id) < config.vocab) Put(keys, name, static_cast<uint32_t>(id));
  };
  put_id("bos_token_id", file.bos);
  // A chat model may end its turns with another token than its tokenizer's.
  int64_t eos = file.eos;
  if (const auto given = config.json.find("eos_token_id"); given != config.json.end()) {
    const Json& first = given->is_array() && !given->empty() ? given->front() : *given;
    if (first.is_number_integer()) eos = first.get<int64_t>();
  }
  put_id("eos_token_id", eos);
  put_id("unknown_token_id", file.unk);
  put_id("padding_token_id", file.pad);
  const auto flag = [&](const char* name, bool otherwise) {
    const auto found = settings.find(name);
    return found != settings.end() && found->is_boolean() ? found->get<bool>() : otherwise;
  };
  Put(keys, "add_bos_token", flag("add_bos_token", true));
  Put(keys, "add_eos_token", flag("add_eos_token", false));
  Put(keys, "add_space_prefix", file.blank_in_front);
  if (std::string text = ChatTemplate(directory, settings); !text.empty())
    keys.push_back({fmt::format("{}chat_template", kPrefix), std::move(text)});
  return keys;
}

// The kinds of tokenizers by the file that has them, the first that is there counts. A null function: a kind
// that is not written yet.
struct Kind {
  const char* file;
  std::vector<GgufKey> (*keys)(const fs::path& directory, const ModelConfig& config);
};
constexpr Kind kKinds[] = {
    {"tokenizer.model", SentencePieceKeys},
    {"tokenizer.json", nullptr},
    {"vocab.json", nullptr},
    {"tiktoken.model", nullptr},
};

}  // namespace

std::vector<GgufKey> TokenizerKeysOf(const fs::path& directory, const ModelConfig& config) {
  for (const Kind& kind : kKinds) {
    if (!IsPresent(directory / kind.file)) continue;
    if (kind.keys != nullptr) return kind.keys(directory, config);
    Fail("{}: cannot be written into a GGUF file; supported are SentencePiece tokenizers (tokenizer.model)",
         (directory / kind.file).string());
  }
  LogWarningOnce("{}: has no tokenizer; the GGUF file is written without a vocabulary", directory.string());
  std::vector<GgufKey> keys;
  Put(keys, "model", std::string("no_vocab"));
  return keys;
}

std::vector<GgufKey> TokenizerKeysIn(const std::vector<GgufKey>& keys) {
  std::vector<GgufKey> found;
  std::ranges::copy_if(keys, std::back_inserter(found),
                       [](const GgufKey& key) { return key.name.starts_with(kPrefix); });
  return found;
}

}  // namespace mica
