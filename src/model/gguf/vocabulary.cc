#include "model/gguf/vocabulary.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/json.h"
#include "base/log.h"
#include "io/container/checkpoint.h"
#include "io/container/read_vocabulary.h"
#include "io/text/sentencepiece_file.h"
#include "io/text/tokenizer_companions.h"
#include "model/gguf/json_vocabulary.h"
#include "model/gguf/token_table.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPrefix = "tokenizer.";

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

// The pieces of a tokenizer.model, and what the files beside it add.
TokenTable TokensOf(const SentencePieceFile& file, const std::vector<AddedToken>& added, size_t rows,
                    const std::string& where) {
  if (file.pieces.size() > rows)
    Fail("{}: has {} pieces, the model a vocabulary of {}; they do not belong together", where,
         file.pieces.size(), rows);
  TokenTable tokens(rows, where);
  for (size_t id = 0; id < file.pieces.size(); ++id) {
    const SentencePiece& piece = file.pieces[id];
    // Readers of GGUF files look for such a token in the text before its blanks become U+2581.
    tokens.Put(static_cast<int64_t>(id),
               piece.type == kUserDefinedToken ? WithBlanks(piece.text) : piece.text, piece.type,
               piece.score);
  }
  for (const AddedToken& one : added) {
    if (static_cast<size_t>(one.id) < file.pieces.size()) continue;  // a piece keeps its type
    tokens.Put(one.id, WithBlanks(one.content), one.special ? kControlToken : kUserDefinedToken,
               kScoreOfAdded);
  }
  return tokens;
}

void Put(std::vector<GgufKey>& keys, std::string_view name, GgufValue value) {
  keys.push_back({fmt::format("{}ggml.{}", kPrefix, name), std::move(value)});
}

// What is written of a directory's tokenizer. Ids: -1, none.
struct Written {
  GgufVocabulary vocabulary;
  int64_t eos = -1, unknown = -1, padding = -1;
};

Written OfTokenizerModel(const fs::path& path, const ModelConfig& config) {
  const std::string where = path.string();
  const SentencePieceFile file = ParseSentencePieceFile(ReadFile(path), where);
  if (!file.merges) {
    Fail(
        "{}: is a unigram model of SentencePiece, which GGUF files of this architecture cannot hold; "
        "supported "
        "are its BPE models",
        where);
  }
  const TokenizerCompanions companions = ReadTokenizerCompanions(path.parent_path());
  Written written{.vocabulary = {}, .eos = file.eos, .unknown = file.unk, .padding = file.pad};
  GgufVocabulary& vocabulary = written.vocabulary;
  vocabulary.model = "llama";
  vocabulary.pre = "default";
  TokensOf(file, companions.added, config.vocab, where).MoveTo(vocabulary);
  if (file.bos >= 0) vocabulary.bos = static_cast<uint32_t>(file.bos);
  vocabulary.add_bos = companions.adds_bos.value_or(true);
  vocabulary.add_space_prefix = file.blank_in_front;
  return written;
}

Written OfTokenizerJson(const fs::path& path, const ModelConfig& config) {
  Written written{.vocabulary = VocabularyOfTokenizerJson(path, ReadTokenizerCompanions(path.parent_path()),
                                                          config.vocab)};
  const Json settings = ReadIfThere(path.parent_path() / "tokenizer_config.json");
  const std::vector<std::string>& tokens = written.vocabulary.tokens;
  const auto id_of = [&](const char* key) -> int64_t {
    const Json found = settings.value(key, Json());
    const Json content = found.is_object() ? found.value("content", Json()) : found;
    if (!content.is_string()) return -1;
    const auto token = std::ranges::find(tokens, content.get<std::string>());
    return token == tokens.end() ? -1 : token - tokens.begin();
  };
  written.eos = id_of("eos_token");
  written.unknown = id_of("unk_token");
  written.padding = id_of("pad_token");
  return written;
}

// The first id that config.json has under a key, or `otherwise`.
int64_t IdIn(const Json& config, const char* key, int64_t otherwise) {
  const auto given = config.find(key);
  if (given == config.end()) return otherwise;
  const Json& first = given->is_array() && !given->empty() ? given->front() : *given;
  return first.is_number_integer() ? first.get<int64_t>() : otherwise;
}

std::vector<GgufKey> KeysOf(Written written, const fs::path& directory, const ModelConfig& config) {
  GgufVocabulary& vocabulary = written.vocabulary;
  std::vector<GgufKey> keys;
  Put(keys, "model", std::move(vocabulary.model));
  Put(keys, "pre", std::move(vocabulary.pre));
  Put(keys, "tokens", GgufArray{std::move(vocabulary.tokens)});
  if (!vocabulary.scores.empty()) Put(keys, "scores", GgufArray{std::move(vocabulary.scores)});
  Put(keys, "token_type", GgufArray{std::move(vocabulary.token_type)});
  if (!vocabulary.merges.empty()) Put(keys, "merges", GgufArray{std::move(vocabulary.merges)});
  const auto put_id = [&](const char* name, int64_t id) {
    if (id >= 0 && static_cast<uint64_t>(id) < config.vocab) Put(keys, name, static_cast<uint32_t>(id));
  };
  // Without the key readers take a token of their own for it.
  put_id("bos_token_id", vocabulary.bos ? int64_t{*vocabulary.bos} : IdIn(config.json, "bos_token_id", -1));
  // A chat model may end its turns with another token than its tokenizer's.
  put_id("eos_token_id", IdIn(config.json, "eos_token_id", written.eos));
  put_id("unknown_token_id", written.unknown);
  put_id("padding_token_id", written.padding);
  const Json settings = ReadIfThere(directory / "tokenizer_config.json");
  const Json adds_eos = settings.value("add_eos_token", Json(false));
  Put(keys, "add_bos_token", vocabulary.add_bos.value_or(false));
  Put(keys, "add_eos_token", adds_eos == true);
  if (vocabulary.add_space_prefix) Put(keys, "add_space_prefix", *vocabulary.add_space_prefix);
  if (std::string text = ChatTemplate(directory, settings); !text.empty())
    keys.push_back({fmt::format("{}chat_template", kPrefix), std::move(text)});
  return keys;
}

// The kinds of tokenizers by the file that has them, the first that is there counts. A null function: a kind
// that is not written yet.
struct Kind {
  const char* file;
  Written (*written)(const fs::path& file, const ModelConfig& config);
};
constexpr Kind kKinds[] = {
    {"tokenizer.model", OfTokenizerModel},
    {"tokenizer.json", OfTokenizerJson},
    {"vocab.json", nullptr},
    {"tiktoken.model", nullptr},
};

}  // namespace

std::vector<GgufKey> TokenizerKeysOf(const fs::path& directory, const ModelConfig& config) {
  for (const Kind& kind : kKinds) {
    const fs::path file = directory / kind.file;
    if (kind.written == nullptr && IsPresent(directory / kVocabularyFile)) break;
    if (!IsPresent(file)) continue;
    if (kind.written != nullptr) return KeysOf(kind.written(file, config), directory, config);
    Fail(
        "{}: cannot be written into a GGUF file; supported are tokenizer.model (SentencePiece, BPE) and "
        "tokenizer.json (BPE), fetch one of them as well",
        file.string());
  }
  if (IsPresent(directory / kVocabularyFile))
    return TokenizerKeysIn(OpenGguf(directory / kVocabularyFile).keys);
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

void WriteVocabularyFile(const std::vector<GgufKey>& keys, const fs::path& out) {
  if (!HasGgufVocabulary(keys)) return;
  std::vector<GgufKey> written = {{"general.type", std::string("vocab")}};
  if (const GgufValue* architecture = FindKey(keys, "general.architecture"))
    written.push_back({"general.architecture", *architecture});
  for (GgufKey& key : TokenizerKeysIn(keys)) written.push_back(std::move(key));
  GgufWriter(out, {}, written).Commit();
}

}  // namespace mica
