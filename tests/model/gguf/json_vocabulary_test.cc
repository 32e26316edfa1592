// tokenizer.json as the vocabulary of a GGUF file: what is written cuts texts as the original does.
#include "model/gguf/json_vocabulary.h"

#include "base/file.h"
#include "base/json.h"
#include "io/container/read_vocabulary.h"
#include "io/text/byte_characters.h"
#include "io/text/pre_kinds.h"
#include "io/text/tokenizer.h"
#include "model/gguf/vocabulary.h"
#include "model/vocabulary.h"
#include "tests/error_message.h"
#include "tests/model/tiny_model.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

const Json kByteLevel = {
    {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};

Json Sequence(const char* members, const std::vector<Json>& steps) {
  return {{"type", "Sequence"}, {members, steps}};
}
Json Split(const std::string& expression) {
  return {
      {"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}};
}
Json Added(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content}, {"single_word", false},  {"lstrip", false},
          {"rstrip", false}, {"special", special}, {"normalized", !special}};
}

// Bytes, a few merges, a special token and one that is not.
Json ByteLevelBpe(const std::vector<Json>& steps) {
  Json vocab;
  for (int byte = 0; byte < 256; ++byte)
    vocab[CharactersOfBytes(std::string(1, static_cast<char>(byte)))] = byte;
  const std::vector<std::string> merges = {"t h", "th e", "Ġ the", "1 2", "12 3", "Ċ Ċ", "' s", "Ġ Ġ"};
  for (std::string merge : merges) vocab[merge.erase(merge.find(' '), 1)] = vocab.size();
  return {{"version", "1.0"},
          {"added_tokens", {Added(264, "<|end|>", true), Added(265, "<think>", false)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", Sequence("pretokenizers", steps)},
          {"post_processor", nullptr},
          {"decoder", kByteLevel},
          {"model", {{"type", "BPE"}, {"ignore_merges", false}, {"vocab", vocab}, {"merges", merges}}}};
}

// Bytes, characters and merges by all ways; blanks in front.
Json CharacterBpe() {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = vocab.size();
  for (const char* character : {"▁", "a", "b", "c", "d"}) vocab[character] = vocab.size();
  const std::vector<std::vector<std::string>> merges = {{"a", "b"},  {"▁", "a"}, {"▁", "ab"},
                                                        {"▁a", "b"}, {"▁", "▁"}, {"c", "d"}};
  for (const auto& merge : merges) {
    if (!vocab.contains(merge[0] + merge[1])) vocab[merge[0] + merge[1]] = vocab.size();
  }
  const std::vector<Json> blanks = {{{"type", "Prepend"}, {"prepend", "▁"}},
                                    {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}};
  const std::vector<Json> decoder = {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                                     {{"type", "ByteFallback"}},
                                     {{"type", "Fuse"}},
                                     {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}};
  return {{"version", "1.0"},
          {"added_tokens", {Added(0, "<unk>", true), Added(1, "<s>", true), Added(2, "</s>", true)}},
          {"normalizer", Sequence("normalizers", blanks)},
          {"pre_tokenizer", nullptr},
          {"post_processor", nullptr},
          {"decoder", Sequence("decoders", decoder)},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"vocab", vocab},
            {"merges", merges}}}};
}

class JsonVocabulary : public testing::Test {
 protected:
  GgufVocabulary Of(const Json& json, size_t rows, const TokenizerCompanions& companions = {}) {
    const fs::path path = directory_ / "tokenizer.json";
    WriteJson(path, json);
    return VocabularyOfTokenizerJson(path, companions, rows);
  }
  void Refuse(const Json& json, const std::vector<std::string>& parts) {
    ExpectError([&] { Of(json, 1000); }, parts);
  }

  TemporaryDirectory directory_;
};

TEST_F(JsonVocabulary, EveryWayToCutHasItsName) {
  for (const PreKind& kind : PreKinds()) {
    std::vector<Json> steps;
    for (const std::string_view expression : kind.expressions)
      steps.push_back(Split(std::string(expression)));
    steps.push_back(kByteLevel);
    Json json = ByteLevelBpe(steps);
    json["model"]["ignore_merges"] = kind.ignore_merges;
    const GgufVocabulary made = Of(json, 300);
    const PreKind* const named = FindPreKind(
        std::vector<std::string>(kind.expressions.begin(), kind.expressions.end()), kind.ignore_merges);
    ASSERT_NE(named, nullptr) << kind.name;
    EXPECT_EQ(made.pre, named->name);  // smollm, starcoder and refact cut alike
    EXPECT_EQ(made.model, "gpt2");
  }
  // As the library spells them.
  Json own = kByteLevel;
  own["use_regex"] = true;
  EXPECT_EQ(Of(ByteLevelBpe({own}), 300).pre, "gpt-2");
  EXPECT_EQ(Of(ByteLevelBpe({{{"type", "Digits"}, {"individual_digits", true}}, own}), 300).pre, "smollm");
  const std::string raw =
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
      "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
  EXPECT_EQ(
      Of(ByteLevelBpe({Split("\\p{N}{1,3}"), Split("[一-龥぀-ゟ゠-ヿ]+"), Split(raw), kByteLevel}), 300)
          .pre,
      "deepseek-v3");
}

TEST_F(JsonVocabulary, TokensOfAByteLevelOne) {
  Json own = kByteLevel;
  own["use_regex"] = true;
  TokenizerCompanions companions{.adds_bos = true, .bos = "<|end|>", .added = {}};
  const GgufVocabulary made = Of(ByteLevelBpe({own}), 268, companions);
  ASSERT_EQ(made.tokens.size(), 268u);
  EXPECT_EQ(made.tokens[258], "Ġthe");
  EXPECT_EQ(made.tokens[264], "<|end|>");
  EXPECT_EQ(made.tokens[265], "<think>");
  EXPECT_EQ(made.tokens[267], "[PAD267]");
  EXPECT_EQ(std::vector<int32_t>(made.token_type.begin() + 263, made.token_type.end()),
            (std::vector<int32_t>{1, 3, 4, 5, 5}));
  EXPECT_EQ(made.merges.front(), "t h");
  EXPECT_EQ(made.merges.size(), 8u);
  EXPECT_TRUE(made.scores.empty());
  EXPECT_EQ(made.bos, 264u);
  EXPECT_EQ(made.add_bos, true);
  // Added tokens that the model has no row for are left out, pieces are not.
  EXPECT_EQ(Of(ByteLevelBpe({own}), 265).tokens.back(), "<|end|>");
  ExpectError([&] { Of(ByteLevelBpe({own}), 260); }, {"id 26", "a vocabulary of 260"});
}

TEST_F(JsonVocabulary, CharactersBecomeAVocabularyByScore) {
  const GgufVocabulary made = Of(CharacterBpe(), 300);
  EXPECT_EQ(made.model, "llama");
  EXPECT_EQ(made.add_space_prefix, true);
  const auto at = [&](const std::string& token) {
    return static_cast<size_t>(std::ranges::find(made.tokens, token) - made.tokens.begin());
  };
  EXPECT_EQ(made.token_type[0], 2);
  EXPECT_EQ(made.token_type[1], 3);
  EXPECT_EQ(made.token_type[at("<0x0A>")], 6);
  EXPECT_EQ(made.token_type[at("ab")], 1);
  EXPECT_EQ(made.scores[at("ab")], 0);
  EXPECT_EQ(made.scores[at("▁ab")], -2);
  EXPECT_EQ(made.scores[at("cd")], -5);
  EXPECT_EQ(made.scores[at("d")], -6);
  const Tokenizer read = FromGguf(made, "g"), original = Tokenizer::Open(directory_ / "tokenizer.json");
  for (const char* text : {"ab cd", "  abab\n", "acdb é", "a  a   ab"})
    EXPECT_EQ(read.Encode(text), original.Encode(text)) << text;
}

TEST_F(JsonVocabulary, RefusesWhatAFileCannotHold) {
  Refuse(ByteLevelBpe({Split("[a-z]+|\\d"), kByteLevel}),
         {"tokenizer.json", "cuts texts by [a-z]+|\\d", "tokenizer.ggml.pre"});
  Json own = kByteLevel;
  own["use_regex"] = true;
  Json json = ByteLevelBpe({own});
  json["model"]["ignore_merges"] = true;
  Refuse(json, {"with ignore_merges true"});
  json = ByteLevelBpe({own});
  json["normalizer"] = {{"type", "NFKC"}};
  Refuse(json, {"its normalizer is NFKC"});
  json["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(Of(json, 300).pre, "gpt-2");
  json = CharacterBpe();
  json["model"]["merges"].erase(3);
  Refuse(json, {"\"▁a\" and \"b\" are tokens and \"▁ab\" as well"});
  json = CharacterBpe();
  json["normalizer"]["normalizers"].push_back({{"type", "Lowercase"}});
  Refuse(json, {"its normalizer has", "Lowercase"});
}

// Keys of a directory, and the way back through a file without tensors.
TEST_F(JsonVocabulary, GoesThroughAFile) {
  Json own = kByteLevel;
  own["use_regex"] = true;
  WriteJson(directory_ / "tokenizer.json", ByteLevelBpe({own}));
  WriteFileAtomically(
      directory_ / "tokenizer_config.json",
      R"({"eos_token": {"content": "<|end|>"}, "pad_token": "<think>", "chat_template": "T"})");
  ModelConfig config = ParseConfig(TinyConfig(), "test");
  config.vocab = 300;
  config.json["bos_token_id"] = 264;
  const std::vector<GgufKey> keys = TokenizerKeysOf(directory_.path(), config);
  const auto number = [&](const char* name) { return WholeNumberOf(*FindKey(keys, name)); };
  EXPECT_EQ(number("tokenizer.ggml.bos_token_id"), 264);
  EXPECT_EQ(number("tokenizer.ggml.eos_token_id"), 264);
  EXPECT_EQ(number("tokenizer.ggml.padding_token_id"), 265);
  EXPECT_EQ(std::get<bool>(*FindKey(keys, "tokenizer.ggml.add_bos_token")), false);
  EXPECT_EQ(std::get<std::string>(*FindKey(keys, "tokenizer.chat_template")), "T");
  TemporaryDirectory other;
  EXPECT_FALSE(HasTokenizer(other.path()));
  WriteVocabularyFile(keys, other / kVocabularyFile);
  EXPECT_TRUE(HasTokenizer(other.path()));
  const std::string text = "the 123 the's\n\n <think> x";
  EXPECT_EQ(OpenTokenizer(other.path()).Encode(text), OpenTokenizer(directory_.path()).Encode(text));
  const std::vector<GgufKey> again = TokenizerKeysOf(other.path(), config);
  EXPECT_EQ(again.size(), TokenizerKeysIn(keys).size());
  ExpectError([&] { ReadGgufVocabulary({}, "x.gguf"); }, {"x.gguf: holds no vocabulary", "--tokenizer"});
  ExpectError(
      [&] {
        ReadGgufVocabulary({{"tokenizer.ggml.model", uint32_t{1}}}, "x.gguf");
      },
      {"holds no vocabulary"});
  ExpectError(
      [&] {
        ReadGgufVocabulary(
            {{"tokenizer.ggml.model", std::string("gpt2")}, {"tokenizer.ggml.tokens", uint32_t{1}}},
            "x.gguf");
      },
      {"tokenizer.ggml.tokens has type UINT32"});
}

}  // namespace
}  // namespace mica
