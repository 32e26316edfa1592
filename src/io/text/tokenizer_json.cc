#include "io/text/tokenizer_json.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file_kind.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/text.h"
#include "io/text/byte_characters.h"
#include "io/text/pre_kinds.h"

namespace mica {
namespace {

// The objects of the pipeline, each with a "type" that says what else it has.
class Reader {
 public:
  Reader(const Json& json, std::string where) : reader_(json, std::move(where)) {
    if (reader_.Find("type") == nullptr) Fail("{}: has no \"type\"", reader_.where());
    reader_.Read("type", type_);
  }

  const std::string& type() const { return type_; }
  const std::string& where() const { return reader_.where(); }
  template <typename T>
  T Get(const char* key) {
    T value{};
    if (reader_.Find(key) == nullptr) Fail("{}: {} has no \"{}\"", where(), type_, key);
    reader_.Read(key, value);
    return value;
  }
  template <typename T>
  T Get(const char* key, T otherwise) {
    const Json* found = reader_.Find(key);
    if (found != nullptr && !found->is_null()) reader_.Read(key, otherwise);
    return otherwise;
  }
  const Json* Find(const char* key) { return reader_.Find(key); }
  // A key that changes no id.
  void Pass(const char* key) { reader_.Find(key); }
  void Finish() const { reader_.Finish(); }

  [[noreturn]] void RefuseType(const char* expected) const {
    Fail("{}: type {} is not supported, expected {}", where(), Printable(type_, 40), expected);
  }
  [[noreturn]] void RefuseValue(const char* key, std::string_view found, const char* expected) const {
    Fail("{}: \"{}\" of {} is \"{}\", expected {}", where(), key, type_, Printable(found), expected);
  }

  // The objects of an array.
  const Json& Members(const char* key) {
    const Json* members = reader_.Find(key);
    if (members == nullptr || !members->is_array()) Fail("{}: {} has no array \"{}\"", where(), type_, key);
    return *members;
  }
  // {"String": ...} or {"Regex": ...}.
  Pattern GetPattern(const char* key) {
    const Json* pattern = reader_.Find(key);
    const auto text_of = [&](const char* kind) -> std::optional<std::string> {
      if (pattern == nullptr || !pattern->is_object() || pattern->size() != 1 || !pattern->contains(kind) ||
          !(*pattern)[kind].is_string())
        return std::nullopt;
      return (*pattern)[kind].get<std::string>();
    };
    if (const std::optional<std::string> text = text_of("String"); text && !text->empty())
      return Pattern::Literal(*text);
    if (const std::optional<std::string> text = text_of("Regex"); text && !text->empty())
      return Pattern(*text, where());
    Fail("{}: \"{}\" of {} is {}, expected {{\"String\": text}} or {{\"Regex\": expression}}", where(), key,
         type_, pattern == nullptr ? "missing" : ShownJson(*pattern));
  }
  // Text of one character.
  std::string GetCharacter(const char* key) {
    const std::string text = Get<std::string>(key);
    const auto starts =
        std::ranges::count_if(text, [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
    if (starts != 1) RefuseValue(key, text, "one character");
    return text;
  }

 private:
  JsonReader reader_;
  std::string type_;
};

const Json* PartOf(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? nullptr : &*found;
}

void ReadNormalizer(const Json& json, const std::string& where, Normalizer& normalizer) {
  Reader reader(json, where);
  const std::string& type = reader.type();
  if (type == "Sequence") {
    for (const Json& member : reader.Members("normalizers")) ReadNormalizer(member, where, normalizer);
  } else if (type == "NFC") {
    normalizer.Add(NormalizeForm{NormalForm::kNfc});
  } else if (type == "NFD") {
    normalizer.Add(NormalizeForm{NormalForm::kNfd});
  } else if (type == "NFKC") {
    normalizer.Add(NormalizeForm{NormalForm::kNfkc});
  } else if (type == "NFKD") {
    normalizer.Add(NormalizeForm{NormalForm::kNfkd});
  } else if (type == "Prepend") {
    normalizer.Add(PrependText{reader.Get<std::string>("prepend")});
  } else if (type == "Replace") {
    Pattern pattern = reader.GetPattern("pattern");
    normalizer.Add(ReplaceMatches{std::move(pattern), reader.Get<std::string>("content")});
  } else if (type == "Strip") {
    const bool left = reader.Get<bool>("strip_left");
    normalizer.Add(StripSpace{left, reader.Get<bool>("strip_right")});
  } else if (type == "Lowercase") {
    normalizer.Add(LowerCase{});
  } else {
    reader.RefuseType("Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip or Lowercase");
  }
  reader.Finish();
}

SplitBehavior BehaviorOf(Reader& reader) {
  constexpr std::pair<const char*, SplitBehavior> kBehaviors[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  const std::string name = reader.Get<std::string>("behavior");
  for (const auto& [known, behavior] : kBehaviors) {
    if (name == known) return behavior;
  }
  reader.RefuseValue("behavior", name, "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

// `of_bytes` becomes true with ByteLevel, behind which nothing may come.
void ReadPreTokenizer(const Json& json, const std::string& where, PreTokenizer& steps, bool& of_bytes) {
  Reader reader(json, where);
  const std::string& type = reader.type();
  if (of_bytes) Fail("{}: {} follows ByteLevel, expected ByteLevel as the last", where, Printable(type, 40));
  if (type == "Sequence") {
    for (const Json& member : reader.Members("pretokenizers"))
      ReadPreTokenizer(member, where, steps, of_bytes);
  } else if (type == "Split") {
    Pattern pattern = reader.GetPattern("pattern");
    const SplitBehavior behavior = BehaviorOf(reader);
    steps.Add(SplitAtMatches{std::move(pattern), behavior, reader.Get<bool>("invert", false)});
  } else if (type == "Digits") {
    const bool each = reader.Get<bool>("individual_digits");
    steps.Add(SplitAtMatches{Pattern(each ? R"(\p{N})" : R"(\p{N}+)", where), SplitBehavior::kIsolated});
  } else if (type == "ByteLevel") {
    if (reader.Get<bool>("add_prefix_space")) steps.Add(BlankInFront{});
    if (reader.Get<bool>("use_regex", true))
      steps.Add(SplitAtMatches{Pattern(kGpt2Expression, where), SplitBehavior::kIsolated});
    reader.Pass("trim_offsets");
    of_bytes = true;
  } else if (type == "Metaspace") {
    ReplaceBlanks blanks{.replacement = reader.GetCharacter("replacement")};
    using InFront = ReplaceBlanks::InFront;
    const std::string scheme = reader.Get<std::string>("prepend_scheme", "always");
    if (scheme == "first")
      blanks.in_front = InFront::kFirst;
    else if (scheme == "never")
      blanks.in_front = InFront::kNever;
    else if (scheme != "always")
      reader.RefuseValue("prepend_scheme", scheme, "always, first or never");
    if (!reader.Get<bool>("add_prefix_space", true)) blanks.in_front = InFront::kNever;
    reader.Pass("str_rep");
    const std::string replacement = blanks.replacement;
    steps.Add(std::move(blanks));
    if (reader.Get<bool>("split", true))
      steps.Add(SplitAtMatches{Pattern::Literal(replacement), SplitBehavior::kMergedWithNext});
  } else {
    reader.RefuseType("Sequence, Split, Digits, ByteLevel or Metaspace");
  }
  reader.Finish();
}

// `of_bytes` becomes true with ByteLevel, which stands alone.
void ReadDecoder(const Json& json, const std::string& where, Decoder& decoder, bool& of_bytes) {
  Reader reader(json, where);
  const std::string& type = reader.type();
  if (of_bytes) Fail("{}: {} follows ByteLevel, expected ByteLevel as the last", where, Printable(type, 40));
  if (type == "Sequence") {
    for (const Json& member : reader.Members("decoders")) ReadDecoder(member, where, decoder, of_bytes);
  } else if (type == "ByteLevel") {
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) reader.Pass(key);
    of_bytes = true;
  } else if (type == "Replace") {
    Pattern pattern = reader.GetPattern("pattern");
    decoder.Add(ReplaceInTokens{std::move(pattern), reader.Get<std::string>("content")});
  } else if (type == "ByteFallback") {
    decoder.Add(BytesOfTokens{});
  } else if (type == "Fuse") {
    decoder.Add(FuseTokens{});
  } else if (type == "Strip") {
    const std::string content = reader.GetCharacter("content");
    const size_t start = reader.Get<size_t>("start");
    decoder.Add(StripTokens{content, start, reader.Get<size_t>("stop")});
  } else if (type == "Metaspace") {
    const std::string replacement = reader.GetCharacter("replacement");
    const bool in_front = reader.Get<std::string>("prepend_scheme", "always") != "never" &&
                          reader.Get<bool>("add_prefix_space", true);
    for (const char* key : {"prepend_scheme", "add_prefix_space", "split", "str_rep"}) reader.Pass(key);
    decoder.Add(BlanksOfTokens{replacement, in_front});
  } else {
    reader.RefuseType("Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip or Metaspace");
  }
  reader.Finish();
}

// The id of the token that a post-processor puts in front of a text. What it puts behind one is left out: no
// window of a text ends with it.
void ReadPostProcessor(const Json& json, const std::string& where, std::optional<int32_t>& bos) {
  Reader reader(json, where);
  const std::string& type = reader.type();
  if (type == "Sequence") {
    for (const Json& member : reader.Members("processors")) ReadPostProcessor(member, where, bos);
  } else if (type == "ByteLevel") {
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) reader.Pass(key);
  } else if (type == "TemplateProcessing") {
    reader.Pass("pair");
    const Json* tokens = reader.Find("special_tokens");
    bool before_text = true;
    for (const Json& member : reader.Members("single")) {
      if (member.is_object() && member.contains("Sequence")) before_text = false;
      if (!before_text) continue;
      const auto refuse = [&](const char* expected) {
        Fail("{}: \"single\" of TemplateProcessing begins with {}, expected {}", where, ShownJson(member),
             expected);
      };
      if (bos) refuse("no more than one token in front of the text");
      if (!member.is_object() || !member.contains("SpecialToken") || !member["SpecialToken"].is_object() ||
          !member["SpecialToken"].contains("id") || !member["SpecialToken"]["id"].is_string())
        refuse("SpecialToken or Sequence");
      const std::string name = member["SpecialToken"]["id"];
      const Json* ids = tokens != nullptr && tokens->is_object() && tokens->contains(name) &&
                                (*tokens)[name].is_object() && (*tokens)[name].contains("ids")
                            ? &(*tokens)[name]["ids"]
                            : nullptr;
      int32_t id = -1;
      if (ids == nullptr || !ids->is_array() || ids->size() != 1 || !ReadWhole((*ids)[0], id) || id < 0)
        refuse("a token that has one id in special_tokens");
      bos = id;
    }
  } else {
    reader.RefuseType("Sequence, ByteLevel or TemplateProcessing");
  }
  reader.Finish();
}

// The id of a token as the file writes it, or -1. What stands for no bytes is found by nobody.
int32_t IdOf(const BpeModel& model, const std::string& token) {
  if (!model.of_bytes) return model.pieces.Find(token);
  const std::optional<std::string> bytes = BytesOfCharacters(token);
  return bytes ? model.pieces.Find(*bytes) : -1;
}

void ReadModel(const Json& json, const TokenizerJsonFile& content, const std::string& where, BpeModel& model) {
  const std::string place = where + ": model";
  JsonReader reader(json, place);
  std::string type = "BPE";
  if (reader.Find("type") != nullptr) reader.Read("type", type);
  if (type != "BPE") Fail("{}: type {} is not supported, expected BPE", place, Printable(type, 40));
  if (!content.has_vocab || !content.has_merges)
    Fail("{}: has no \"{}\"", place, content.has_vocab ? "merges" : "vocab");
  const auto flag = [&](const char* key) {
    bool value = false;
    if (const Json* found = reader.Find(key); found != nullptr && !found->is_null()) reader.Read(key, value);
    return value;
  };
  const auto refuse = [&](const char* key, const Json& found, const char* expected) {
    Fail("{}: \"{}\" is {}, expected {}", place, key, ShownJson(found), expected);
  };
  if (const Json* dropout = reader.Find("dropout");
      dropout != nullptr && !dropout->is_null() && *dropout != 0)
    refuse("dropout", *dropout, "none");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const Json* text = reader.Find(key); text != nullptr && !text->is_null() && *text != "")
      refuse(key, *text, "none");
  }
  model.fuse_unknown = flag("fuse_unk");
  model.byte_fallback = flag("byte_fallback");
  model.ignore_merges = flag("ignore_merges");
  const Json* unknown = reader.Find("unk_token");
  reader.Finish();

  for (const auto& [token, id] : content.vocab) {
    // Of bytes, a piece that stands for none is reached by no text.
    std::optional<std::string> bytes = model.of_bytes ? BytesOfCharacters(token) : token;
    const bool found = bytes.has_value();
    model.pieces.Add(found ? std::move(*bytes) : token, id, place + ".vocab", found);
  }
  if (unknown != nullptr && !unknown->is_null()) {
    std::string token;
    if (!unknown->is_string()) refuse("unk_token", *unknown, "a token");
    token = unknown->get<std::string>();
    const int32_t id = IdOf(model, token);
    if (id < 0) refuse("unk_token", *unknown, "one of the tokens of the vocabulary");
    model.unknown = id;
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    const std::string name =
        model.of_bytes ? std::string(1, static_cast<char>(byte)) : fmt::format("<0x{:02X}>", byte);
    if (model.of_bytes || model.byte_fallback) model.byte_ids[byte] = model.pieces.Find(name);
  }
  model.merges.Reserve(content.merges.size());
  for (size_t rank = 0; rank < content.merges.size(); ++rank) {
    const auto& [left, right] = content.merges[rank];
    const int32_t left_id = IdOf(model, left), right_id = IdOf(model, right),
                  merged = IdOf(model, left + right);
    if (left_id < 0 || right_id < 0 || merged < 0) {
      Fail("{}: merge {} of \"{}\" and \"{}\" is of a token that vocab does not have", place, rank,
           Printable(left), Printable(right));
    }
    model.merges.Add(left_id, right_id, {static_cast<uint32_t>(rank), merged});
  }
}

AddedToken ReadAddedToken(const Json& json, const std::string& where) {
  JsonReader reader(json, where);
  AddedToken token;
  for (const char* key : {"id", "content"}) {
    if (reader.Find(key) == nullptr) Fail("{}: a token has no \"{}\"", where, key);
  }
  reader.Read("id", token.id);
  reader.Read("content", token.content);
  reader.Read("special", token.special);
  reader.Read("single_word", token.single_word);
  reader.Read("lstrip", token.lstrip);
  reader.Read("rstrip", token.rstrip);
  token.normalized = !token.special;
  reader.Read("normalized", token.normalized);
  reader.Finish();
  if (token.id < 0 || token.id >= PieceTable::kMaxId)
    Fail("{}: token \"{}\" has id {}, expected 0 to {}", where, Printable(token.content), token.id,
         PieceTable::kMaxId - 1);
  return token;
}

}  // namespace

BpeParts ReadTokenizerJson(std::string_view text, const TokenizerCompanions& companions,
                           const std::string& where) {
  return ReadTokenizerJson(ParseTokenizerJson(text, where), Sha256Hex(text), companions, where);
}

BpeParts ReadTokenizerJson(const TokenizerJsonFile& content, const std::string& fingerprint,
                           const TokenizerCompanions& companions, const std::string& where) {
  JsonReader reader(content.json, where);
  if (const Json* version = reader.Find("version"); version != nullptr && *version != "1.0")
    Fail("{}: \"version\" is {}, expected \"1.0\"", where, ShownJson(*version));
  for (const char* key : {"truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                          "post_processor", "decoder", "model"})
    reader.Find(key);
  reader.Finish();

  BpeParts parts;
  if (const Json* part = PartOf(content.json, "normalizer"))
    ReadNormalizer(*part, where + ": normalizer", parts.normalizer);
  if (const Json* part = PartOf(content.json, "pre_tokenizer"))
    ReadPreTokenizer(*part, where + ": pre_tokenizer", parts.pre_tokenizer, parts.model.of_bytes);
  bool decodes_bytes = false;
  const Json* decoder = PartOf(content.json, "decoder");
  if (decoder != nullptr) {
    ReadDecoder(*decoder, where + ": decoder", parts.decoder, decodes_bytes);
  } else {
    parts.decoder.set_separator(" ");
  }
  if (decodes_bytes && !parts.decoder.empty())
    Fail("{}: decoder has ByteLevel and other types, expected ByteLevel alone", where);
  if (decodes_bytes != parts.model.of_bytes) {
    Fail("{}: {} is ByteLevel, but {} is not", where, decodes_bytes ? "decoder" : "pre_tokenizer",
         decodes_bytes ? "pre_tokenizer" : "decoder");
  }
  std::optional<int32_t> template_bos;
  if (const Json* part = PartOf(content.json, "post_processor"))
    ReadPostProcessor(*part, where + ": post_processor", template_bos);
  const Json* model = PartOf(content.json, "model");
  if (model == nullptr) Fail("{}: has no \"model\"", where);
  ReadModel(*model, content, where, parts.model);

  const std::string place = where + ": added_tokens";
  const auto add = [&](AddedToken token) {
    const int32_t id = IdOf(parts.model, token.content);
    const bool taken =
        id < 0 && parts.model.pieces.Has(token.id) && parts.model.pieces.Text(token.id) != token.content;
    if ((id >= 0 && id != token.id) || taken) {
      Fail("{}: token \"{}\" has id {}, but in model.vocab {}", place, Printable(token.content), token.id,
           taken ? "that is another's" : fmt::format("it has {}", id));
    }
    parts.added.Add(std::move(token), place);
  };
  if (const Json* tokens = PartOf(content.json, "added_tokens")) {
    if (!tokens->is_array()) Fail("{}: is {}, expected an array", place, tokens->type_name());
    for (const Json& token : *tokens) add(ReadAddedToken(token, place));
  }
  parts.fingerprint = fingerprint;
  // Tokens that were added later, and only written beside it.
  std::string besides;
  for (const AddedToken& token : companions.added) {
    if (parts.added.IdOf(token.content) == token.id || IdOf(parts.model, token.content) == token.id) continue;
    add(token);
    besides += fmt::format(", {} {}", token.id, token.content);
  }

  const auto id_of = [&](const std::string& token) -> std::optional<int32_t> {
    int32_t id = parts.added.IdOf(token);
    if (id < 0) id = IdOf(parts.model, token);
    return id < 0 ? std::nullopt : std::optional(id);
  };
  const std::optional<int32_t> named_bos = companions.bos ? id_of(*companions.bos) : std::nullopt;
  parts.adds_bos = companions.adds_bos.value_or(template_bos.has_value());
  parts.bos = parts.adds_bos && companions.adds_bos && named_bos ? named_bos
              : template_bos                                     ? template_bos
                                                                 : named_bos;
  if (parts.adds_bos && !parts.bos)
    Fail("{}: add_bos_token is true beside it, but no bos_token is one of its tokens", where);
  if (parts.adds_bos != template_bos.has_value() || (parts.adds_bos && parts.bos != template_bos))
    besides += parts.adds_bos ? fmt::format(", BOS {}", *parts.bos) : ", no BOS";
  if (!besides.empty()) parts.fingerprint = Sha256Hex(parts.fingerprint + besides);
  return parts;
}

}  // namespace mica
