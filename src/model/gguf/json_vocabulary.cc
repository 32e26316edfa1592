#include "model/gguf/json_vocabulary.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/text.h"
#include "io/text/decoder.h"
#include "io/text/pre_kinds.h"
#include "io/text/tokenizer.h"
#include "io/text/tokenizer_json.h"
#include "io/text/utf8.h"
#include "model/gguf/token_table.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kInstead =
    "compress it with another --coding, or give a model whose tokenizer GGUF files can hold";

// Objects of a pipeline, which the reader has checked (ReadTokenizerJson): sequences taken apart.
void Flatten(const Json& json, const char* members, std::vector<const Json*>& steps) {
  if (json.is_null()) return;
  if (json.at("type") != "Sequence") return steps.push_back(&json);
  for (const Json& member : json.at(members)) Flatten(member, members, steps);
}

std::vector<const Json*> StepsOf(const Json& json, const char* part, const char* members) {
  std::vector<const Json*> steps;
  if (json.contains(part)) Flatten(json.at(part), members, steps);
  return steps;
}

bool Flag(const Json& step, const char* key, bool otherwise) {
  const auto found = step.find(key);
  return found == step.end() || !found->is_boolean() ? otherwise : found->get<bool>();
}

// Line ends inside an expression as their escapes: some write them so, some as they are.
std::string Escaped(std::string_view expression) {
  std::string text;
  for (const char c : expression) {
    if (c == '\n')
      text += "\\n";
    else if (c == '\r')
      text += "\\r";
    else
      text += c;
  }
  return text;
}

// What each step of the pre-tokenizer cuts by; a step that is no expression stands as it is in the file, and
// is then unknown.
std::vector<std::string> ExpressionsOf(const std::vector<const Json*>& steps) {
  std::vector<std::string> expressions;
  for (const Json* step : steps) {
    const std::string type = step->at("type");
    if (type == "Split" && step->at("behavior") == "Isolated" && !Flag(*step, "invert", false) &&
        step->at("pattern").contains("Regex")) {
      expressions.push_back(Escaped(step->at("pattern").at("Regex").get<std::string>()));
    } else if (type == "Digits") {
      expressions.emplace_back(Flag(*step, "individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
    } else if (type == "ByteLevel" && !Flag(*step, "add_prefix_space", true)) {
      if (Flag(*step, "use_regex", true)) expressions.emplace_back(kGpt2Expression);
    } else {
      expressions.push_back(step->dump());
    }
  }
  return expressions;
}

std::string PreOf(const TokenizerJsonFile& file, const std::string& where, bool ignore_merges) {
  const std::vector<std::string> expressions =
      ExpressionsOf(StepsOf(file.json, "pre_tokenizer", "pretokenizers"));
  if (const PreKind* kind = FindPreKind(expressions, ignore_merges)) return std::string(kind->name);
  std::string shown;
  for (const std::string& expression : expressions) shown += (shown.empty() ? "" : ", then ") + expression;
  if (shown.empty()) shown = "nothing";
  const bool other = FindPreKind(expressions, !ignore_merges) != nullptr;
  Fail("{}: cuts texts by {}{}, for which GGUF files have no tokenizer.ggml.pre; {}", where,
       Printable(shown, 400), other ? fmt::format(" with ignore_merges {}", ignore_merges) : "", kInstead);
}

// Whether llama.cpp does what the normaliser of a byte-level tokenizer does: nothing.
void CheckNormalizer(const std::vector<const Json*>& steps, const std::string& where) {
  for (const Json* step : steps) {
    const std::string type = step->at("type");
    if (type != "NFC") {
      Fail("{}: its normalizer is {}, which readers of GGUF files do not have; {}", where,
           Printable(type, 40), kInstead);
    }
    LogWarningOnce(
        "{}: brings a text into the normal form NFC first, which readers of GGUF files do not: they cut "
        "texts alike "
        "that are in it already",
        where);
  }
}

// Whether a blank is put in front of a text. Throws unless blanks become U+2581 and nothing else changes.
bool PutsBlankInFront(const TokenizerJsonFile& file, const std::string& where) {
  bool replaces = false, in_front = false;
  const auto refuse = [&](const char* part, const Json& step) {
    Fail("{}: its {} has {}, which readers of GGUF files do not have; {}", where, part, ShownJson(step),
         kInstead);
  };
  for (const Json* step : StepsOf(file.json, "normalizer", "normalizers")) {
    const std::string type = step->at("type");
    if (type == "Prepend" && step->at("prepend") == kBlankPiece) {
      in_front = true;
    } else if (type == "Replace" && step->at("pattern") == Json{{"String", " "}} &&
               step->at("content") == kBlankPiece) {
      replaces = true;
    } else {
      refuse("normalizer", *step);
    }
  }
  for (const Json* step : StepsOf(file.json, "pre_tokenizer", "pretokenizers")) {
    const std::string type = step->at("type");
    if (type == "Metaspace" && !Flag(*step, "split", true) && step->at("replacement") == kBlankPiece) {
      replaces = true;
      in_front = step->value("prepend_scheme", "always") != "never" && Flag(*step, "add_prefix_space", true);
    } else if (type != "Split" || step->at("pattern") != Json{{"String", " "}} || !replaces) {
      refuse("pre_tokenizer", *step);  // cutting at blanks when there are none left is idle
    }
  }
  if (!replaces) Fail("{}: does not write blanks as {}; {}", where, kBlankPiece, kInstead);
  return in_front;
}

// Merging by score takes every way to put a piece together: all must be merges.
void CheckAllMerge(const BpeModel& model, const TokenTable& tokens, const std::string& where) {
  for (int32_t id = 0; id < model.pieces.size(); ++id) {
    if (!model.pieces.Has(id) || tokens.type(static_cast<size_t>(id)) != kNormalToken) continue;
    const std::string_view text = model.pieces.Text(id);
    for (size_t at = CharacterAt(text, 0).bytes; at < text.size(); at += CharacterAt(text, at).bytes) {
      const int32_t left = model.pieces.Find(text.substr(0, at)), right = model.pieces.Find(text.substr(at));
      if (left < 0 || right < 0 || model.merges.Find(left, right).merged >= 0) continue;
      Fail(
          "{}: \"{}\" and \"{}\" are tokens and \"{}\" as well, but no merge leads from them to it; a GGUF "
          "file "
          "cannot say so; {}",
          where, Printable(text.substr(0, at)), Printable(text.substr(at)), Printable(text), kInstead);
    }
  }
}

// Every kind of character and of boundary that tokenizers differ in, in Unicode's normal form C.
constexpr std::string_view kProbe =
    "Hello, world! It's we'LL they'd I'M don't 'twas O'Neill's\n"
    "  two blanks,   three\tand a tab\t\ttwo \r\n\r\n\n end   \n \n\n\n"
    "1 12 123 1234 12345 1234567.89 -3,14 10^6 0x1F 3rd 2\u00b2 \u00bd \u0663\u0664\u0665\u0666 \u2167\n"
    "caf\u00e9 na\u00efve \u00c5ngstr\u00f6m \u00dcBER stra\u00dfe \u0130stanbul "
    "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 "
    "\u041c\u043e\u0441\u043a\u0432\u0430 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627\n"
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u3053\u3093\u306b\u3061\u306f\u30ab\u30bf\u30ab\u30ca "
    "\uc548\ub155\ud558\uc138\uc694 "
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u1ec7\n"
    "\U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2603\ufe0f "
    "\u20ac\u00a3\u00a5 \u2014 "
    "\u2018quotes\u2019 \u201cdouble\u201d \u2026 \u2581 \u00a0no break\u3000wide\u200b\n"
    "def f(x):\n    if x<=0: return {'a': [1,2]}  # $%^&*()_+|~`\\/?<>;:\n\t\treturn x**2 != y == z -> "
    "\"s\"\n"
    "camelCase snake_case SCREAMING_CASE iPhone HTMLParser https://example.org/a?b=c&d=%20#e me@x.org ... "
    "--- ===\n\n"
    "</s> <s> <unk> [INST] <|im_end|> <think> <0x0A> \x01\x7f end";

// The vocabulary that was made cuts as the tokenizer that it was made of.
void CheckCutsAlike(const Tokenizer& original, const GgufVocabulary& vocabulary, const std::string& where) {
  const Tokenizer made = FromGguf(vocabulary, where);
  for (std::string_view left = kProbe; !left.empty();) {
    const size_t line = std::min(left.find('\n'), left.size() - 1) + 1;
    for (const std::string_view text : {left.substr(0, line), left}) {
      if (original.Encode(text) == made.Encode(text)) continue;
      Fail("{}: readers of a GGUF file would cut \"{}\" into other tokens; {}", where, Printable(text, 60),
           kInstead);
    }
    left.remove_prefix(line);
  }
}

}  // namespace

GgufVocabulary VocabularyOfTokenizerJson(const fs::path& path, const TokenizerCompanions& companions,
                                         size_t rows) {
  const std::string where = path.string(), text = ReadFile(path, kMaxTokenizerJsonBytes);
  const TokenizerJsonFile file = ParseTokenizerJson(text, where);
  BpeParts parts = ReadTokenizerJson(file, Sha256Hex(text), companions, where);
  const BpeModel& model = parts.model;
  GgufVocabulary vocabulary;
  if (model.of_bytes) {
    vocabulary.model = "gpt2";
    vocabulary.pre = PreOf(file, where, model.ignore_merges);
    CheckNormalizer(StepsOf(file.json, "normalizer", "normalizers"), where);
  } else {
    vocabulary.model = "llama";
    vocabulary.pre = "default";
    vocabulary.add_space_prefix = PutsBlankInFront(file, where);
    if (!model.byte_fallback || model.ignore_merges) {
      Fail("{}: is BPE over characters {}, which GGUF files cannot hold; {}", where,
           model.ignore_merges ? "with ignore_merges" : "without byte_fallback", kInstead);
    }
  }
  TokenTable tokens(rows, where);
  std::unordered_map<std::string_view, size_t> merge_of;  // the first that makes a token, by its text
  if (!model.of_bytes) {
    for (size_t rank = 0; rank < file.merges.size(); ++rank) {
      const int32_t id = model.pieces.Find(file.merges[rank].first + file.merges[rank].second);
      merge_of.emplace(model.pieces.Text(id), rank);
    }
  }
  const auto score_of = [&](std::string_view token) {
    const auto found = merge_of.find(token);
    return -static_cast<float>(found == merge_of.end() ? file.merges.size() : found->second);
  };
  for (const auto& [token, id] : file.vocab) {
    const bool byte = !model.of_bytes && ByteOfToken(token).has_value();
    tokens.Put(id, token, byte ? kByteToken : kNormalToken, score_of(token));
  }
  for (const auto& [id, token] : parts.added.tokens()) {
    if (static_cast<size_t>(id) >= rows) {
      LogWarningOnce("{}: token \"{}\" has id {}, the model a vocabulary of {}; the GGUF file is without it",
                     where, Printable(token.content), id, rows);
      continue;
    }
    if (!token.special && (token.single_word || token.lstrip || token.rstrip)) {
      LogWarningOnce(
          "{}: token \"{}\" takes blanks along or stands alone, which readers of GGUF files do not know",
          where, Printable(token.content));
    }
    const bool blanks = !model.of_bytes && token.content.find(kBlankPiece) != std::string::npos;
    // A text has no U+2581 where such a token is looked for: it is merged.
    if (blanks && !token.special && !token.normalized && merge_of.contains(token.content)) continue;
    tokens.Put(id, blanks && token.normalized ? WithBlanks(token.content) : token.content,
               token.special ? kControlToken : kUserDefinedToken, score_of(token.content));
  }
  if (!model.of_bytes && model.unknown)
    tokens.Put(*model.unknown, model.pieces.Text(*model.unknown), kUnknownToken, score_of(""));
  if (!model.of_bytes) CheckAllMerge(model, tokens, where);
  tokens.MoveTo(vocabulary);
  if (model.of_bytes) {
    vocabulary.scores.clear();
    // The first blank parts the two: inside of a token it would be U+0120.
    for (const auto& [left, right] : file.merges) vocabulary.merges.push_back(left + " " + right);
  }
  if (parts.bos) vocabulary.bos = static_cast<uint32_t>(*parts.bos);
  vocabulary.add_bos = parts.adds_bos;
  Tokenizer original(std::make_unique<BpeEncoder>(std::move(parts)));
  original.DropAddedFrom(static_cast<int32_t>(rows));
  CheckCutsAlike(original, vocabulary, where);
  return vocabulary;
}

}  // namespace mica
