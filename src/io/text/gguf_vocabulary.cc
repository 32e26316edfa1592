#include "io/text/gguf_vocabulary.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/sha256.h"
#include "base/text.h"
#include "io/text/bpe_encoder.h"
#include "io/text/byte_characters.h"
#include "io/text/pre_kinds.h"
#include "io/text/utf8.h"

namespace mica {
namespace {

constexpr std::string_view kBlank = "\u2581";

enum TokenType : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

const PreKind& PreKindOf(const GgufVocabulary& vocabulary, const std::string& where) {
  const std::string_view name = vocabulary.pre.empty() ? std::string_view("default") : vocabulary.pre;
  std::vector<std::string_view> names;
  for (const PreKind& kind : PreKinds()) {
    if (kind.name == name) return kind;
    names.push_back(kind.name);
  }
  Fail("{}: tokenizer.ggml.pre is \"{}\", which is not supported, expected {}", where, Printable(name, 40),
       fmt::join(names, ", "));
}

int32_t TypeOf(const GgufVocabulary& vocabulary, size_t id) {
  return vocabulary.token_type.empty() ? static_cast<int32_t>(kNormal) : vocabulary.token_type[id];
}

// Lengths and types fit together, texts are UTF-8.
void Check(const GgufVocabulary& v, const std::string& where) {
  const auto check_count = [&](const char* key, size_t count) {
    if (count != v.tokens.size())
      Fail("{}: tokenizer.ggml.{} has {} entries, expected one for each of the {} tokens", where, key, count,
           v.tokens.size());
  };
  if (v.tokens.empty()) Fail("{}: tokenizer.ggml.tokens is empty", where);
  if (!v.token_type.empty()) check_count("token_type", v.token_type.size());
  if (v.model == "llama") check_count("scores", v.scores.size());
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (TypeOf(v, id) < kNormal || TypeOf(v, id) > kByte)
      Fail("{}: token {} has type {} in tokenizer.ggml.token_type, expected 1 to 6", where, id,
           TypeOf(v, id));
    if (FirstInvalidUtf8(v.tokens[id]) != std::string_view::npos)
      Fail("{}: token {} \"{}\" is not UTF-8", where, id, Printable(v.tokens[id]));
  }
  for (size_t id = 0; id < v.scores.size(); ++id) {
    if (std::isnan(v.scores[id])) Fail("{}: token {} has no number for a score", where, id);
  }
  if (v.bos && *v.bos >= v.tokens.size())
    Fail("{}: tokenizer.ggml.bos_token_id is {}, expected 0 to {}", where, *v.bos, v.tokens.size() - 1);
}

std::string FingerprintOf(const GgufVocabulary& v) {
  std::string all = fmt::format("{}\n{}\n{}\n", v.model, v.pre, v.add_space_prefix.value_or(true));
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    all += fmt::format("{} {} {}\n", v.tokens[id].size(), v.tokens[id], TypeOf(v, id));
    if (id < v.scores.size()) all += fmt::format("{}\n", v.scores[id]);
  }
  for (const std::string& merge : v.merges) all += fmt::format("{} {}\n", merge.size(), merge);
  return Sha256Hex(all);
}

void AddByteLevel(const GgufVocabulary& v, const std::string& where, BpeParts& parts) {
  const PreKind& kind = PreKindOf(v, where);
  for (const std::string_view expression : kind.expressions)
    parts.pre_tokenizer.Add(SplitAtMatches{Pattern(expression, where)});
  parts.adds_bos = v.add_bos.value_or(kind.implies_bos);
  BpeModel& model = parts.model;
  model.of_bytes = true;
  model.ignore_merges = kind.ignore_merges;
  const std::string tokens = where + ": tokenizer.ggml.tokens";
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    std::optional<std::string> bytes;
    if (TypeOf(v, id) == kNormal) bytes = BytesOfCharacters(v.tokens[id]);
    const bool found = bytes.has_value();
    model.pieces.Add(found ? std::move(*bytes) : v.tokens[id], static_cast<int64_t>(id), tokens, found);
  }
  for (size_t byte = 0; byte < 256; ++byte)
    model.byte_ids[byte] = model.pieces.Find(std::string(1, static_cast<char>(byte)));
  model.merges.Reserve(v.merges.size());
  for (size_t rank = 0; rank < v.merges.size(); ++rank) {
    const std::string& merge = v.merges[rank];
    const size_t blank = merge.find(' ', 1);
    const auto refuse = [&](const char* expected) {
      Fail("{}: merge {} \"{}\" of tokenizer.ggml.merges is not {}", where, rank, Printable(merge), expected);
    };
    if (blank == std::string::npos) refuse("two tokens with a blank between them");
    const std::optional<std::string> left = BytesOfCharacters(merge.substr(0, blank));
    const std::optional<std::string> right = BytesOfCharacters(merge.substr(blank + 1));
    if (!left || !right) refuse("of byte-level tokens");
    const int32_t left_id = model.pieces.Find(*left), right_id = model.pieces.Find(*right);
    const int32_t merged = model.pieces.Find(*left + *right);
    if (left_id < 0 || right_id < 0 || merged < 0) refuse("of tokens that tokenizer.ggml.tokens has");
    model.merges.Add(left_id, right_id, {static_cast<uint32_t>(rank), merged});
  }
}

// Merging by score: of all neighbours that together are a piece those with the highest score are merged
// first. Each way to put a piece together is a merge, and its rank that of the score.
void AddByScore(const GgufVocabulary& v, const std::string& where, BpeParts& parts) {
  const bool blank_in_front = v.add_space_prefix.value_or(true);
  if (blank_in_front) parts.normalizer.Add(PrependText{" "});
  parts.normalizer.Add(ReplaceMatches{Pattern::Literal(" "), std::string(kBlank)});
  parts.decoder.Add(ReplaceInTokens{Pattern::Literal(std::string(kBlank)), " "});
  parts.decoder.Add(BytesOfTokens{});
  parts.decoder.Add(FuseTokens{});
  if (blank_in_front) parts.decoder.Add(StripTokens{" ", 1, 0});
  parts.adds_bos = v.add_bos.value_or(true);
  BpeModel& model = parts.model;
  model.byte_fallback = true;
  model.fuse_unknown = true;
  const std::string tokens = where + ": tokenizer.ggml.tokens";
  std::map<float, uint32_t, std::greater<>> ranks;  // of scores
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const int32_t type = TypeOf(v, id);
    model.pieces.Add(v.tokens[id], static_cast<int64_t>(id), tokens, type == kNormal);
    if (type == kNormal) ranks.emplace(v.scores[id], 0);
    if (type == kUnknown && !model.unknown) model.unknown = static_cast<int32_t>(id);
    if (const std::optional<char> byte = ByteOfToken(v.tokens[id]); byte && type == kByte)
      model.byte_ids[static_cast<uint8_t>(*byte)] = static_cast<int32_t>(id);
  }
  uint32_t next = 0;
  for (auto& [score, rank] : ranks) rank = next++;
  const auto symbol_of = [&](const std::string& text, bool one) {
    const int32_t id = model.pieces.Find(text);
    if (id >= 0 || !one) return id;
    return model.loose.emplace(text, model.pieces.size() + static_cast<int32_t>(model.loose.size()))
        .first->second;
  };
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (TypeOf(v, id) != kNormal) continue;
    const std::string& text = v.tokens[id];
    constexpr size_t kLongest = 1024;  // taking one apart takes the square of its length
    if (text.size() > kLongest)
      Fail("{}: token {} has {} bytes, expected at most {}", where, id, text.size(), kLongest);
    const size_t first = text.empty() ? 0 : CharacterAt(text, 0).bytes;
    for (size_t at = first; at < text.size(); at += CharacterAt(text, at).bytes) {
      const bool last = at + CharacterAt(text, at).bytes == text.size();
      const int32_t left = symbol_of(text.substr(0, at), at == first);
      const int32_t right = symbol_of(text.substr(at), last);
      if (left >= 0 && right >= 0)
        model.merges.Add(left, right, {ranks.at(v.scores[id]), static_cast<int32_t>(id)});
    }
  }
}

}  // namespace

Tokenizer FromGguf(const GgufVocabulary& vocabulary, const std::string& where) {
  Check(vocabulary, where);
  BpeParts parts;
  if (vocabulary.model == "gpt2") {
    AddByteLevel(vocabulary, where, parts);
  } else if (vocabulary.model == "llama") {
    AddByScore(vocabulary, where, parts);
  } else {
    Fail("{}: tokenizer.ggml.model is \"{}\", which is not supported, expected \"gpt2\" or \"llama\"", where,
         Printable(vocabulary.model, 40));
  }
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const int32_t type = TypeOf(vocabulary, id);
    if (vocabulary.tokens[id].empty() || (type != kControl && type != kUserDefined && type != kUnknown))
      continue;
    parts.added.Add(
        {.content = vocabulary.tokens[id], .id = static_cast<int32_t>(id), .special = type != kUserDefined},
        where);
  }
  if (vocabulary.bos) parts.bos = static_cast<int32_t>(*vocabulary.bos);
  parts.adds_bos = parts.adds_bos && parts.bos;
  parts.fingerprint = FingerprintOf(vocabulary);
  if (!parts.adds_bos) parts.fingerprint = Sha256Hex(parts.fingerprint + ", no BOS");
  return Tokenizer(std::make_unique<BpeEncoder>(std::move(parts)));
}

}  // namespace mica
