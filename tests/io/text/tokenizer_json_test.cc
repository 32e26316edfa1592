// Small tokenizers of every kind that tokenizer.json knows, with the ids that the original library gives.
#include "io/text/tokenizer_json.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "io/text/byte_characters.h"
#include "io/text/tokenizer.h"
#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;
using Ids = std::vector<int32_t>;

Json Read(const std::string& text) { return ParseJson(text, "test"); }

Json AddedToken(int id, const std::string& content, const std::vector<const char*>& flags = {}) {
  Json token = {{"id", id}, {"content", content}};
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"})
    token[flag] = std::ranges::any_of(flags, [&](const char* set) { return std::string_view(set) == flag; });
  return token;
}

const std::string kByteLevel =
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false})";
const std::string kByteLevelCuts =
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";

// A byte's id is its value, 16 merges follow.
Json ByteLevel(const std::string& normalizer = "null", const std::string& pre_tokenizer = kByteLevelCuts,
               const Json& added = Json::array()) {
  Json vocab;
  for (int byte = 0; byte < 256; ++byte)
    vocab[CharactersOfBytes(std::string(1, static_cast<char>(byte)))] = byte;
  const std::vector<std::string> merges = {"t h", "th e", "Ġ the", "Ġ a", "i n",    "e r", "Ġ Ġ", "ĠĠ ĠĠ",
                                           "1 2", "c a",  "ca f",  "Ã ©", "caf Ã©", "Ċ Ċ", "' s", "o u"};
  for (std::string merge : merges) {
    merge.erase(merge.find(' '), 1);
    vocab[merge] = vocab.size();
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", Read(normalizer)},
          {"pre_tokenizer", Read(pre_tokenizer)},
          {"post_processor", nullptr},
          {"decoder", Read(kByteLevel)},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

const std::string kBlanksInFront = R"({"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},
    {"type":"Replace","pattern":{"String":" "},"content":"▁"}]})";
const std::string kLlamaDecoder =
    R"({"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
    {"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]})";

// Three special tokens, the bytes where wanted, some characters, and six merges, as pairs.
Json OfCharacters(const std::string& normalizer, const std::string& pre_tokenizer, const std::string& decoder,
                  bool bytes = true) {
  Json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; bytes && byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = vocab.size();
  for (const char* character : {"▁", "a", "b", "c", "t", "h", "e"}) vocab[character] = vocab.size();
  const std::vector<std::vector<std::string>> merges = {{"▁", "t"}, {"h", "e"}, {"▁t", "he"},
                                                        {"▁", "a"}, {"▁", "▁"}, {"a", "b"}};
  for (const auto& merge : merges) vocab[merge[0] + merge[1]] = vocab.size();
  const Json added = {AddedToken(0, "<unk>", {"special"}), AddedToken(1, "<s>", {"special"}),
                      AddedToken(2, "</s>", {"special"})};
  return {{"version", "1.0"},
          {"added_tokens", added},
          {"normalizer", Read(normalizer)},
          {"pre_tokenizer", Read(pre_tokenizer)},
          {"post_processor", nullptr},
          {"decoder", Read(decoder)},
          {"model",
           {{"type", "BPE"},
            {"unk_token", "<unk>"},
            {"fuse_unk", true},
            {"byte_fallback", bytes},
            {"vocab", vocab},
            {"merges", merges}}}};
}

std::string Sequence(const std::string& steps) {
  return R"({"type":"Sequence","pretokenizers":[)" + steps + "]}";
}
std::string Split(const std::string& pattern, const std::string& behavior, bool invert = false) {
  return Sequence(fmt::format(R"({{"type":"Split","pattern":{},"behavior":"{}","invert":{}}},{})", pattern,
                              behavior, invert, kByteLevel));
}
std::string Metaspace(const std::string& scheme, bool split) {
  return fmt::format(R"({{"type":"Metaspace","replacement":"▁","prepend_scheme":"{}","split":{}}})", scheme,
                     split);
}
const std::string kLlama3 = Split(
    R"({"Regex":"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"})",
    "Isolated");
const std::string kBlank = R"({"String":" "})";

Json Changed(Json json, const std::function<void(Json&)>& change) {
  change(json["model"]);
  return json;
}

std::map<std::string, Json> Tokenizers() {
  const Json flags = {AddedToken(272, "<s>", {"special"}),
                      AddedToken(257, "the", {"single_word"}),
                      AddedToken(273, "<l>", {"lstrip"}),
                      AddedToken(274, "<r>", {"rstrip"}),
                      AddedToken(275, "<lr>", {"lstrip", "rstrip", "special"}),
                      AddedToken(276, "<lrx"),
                      AddedToken(277, "CAFÉ", {"normalized"})};
  std::string in_front = kByteLevelCuts;
  in_front.replace(in_front.find("false"), 5, "true");
  return {
      {"gpt2", ByteLevel()},
      {"llama3", ByteLevel("null", kLlama3)},
      {"nfc", ByteLevel(R"({"type":"NFC"})")},
      {"nfkc", ByteLevel(R"({"type":"NFKC"})")},
      {"nfd", ByteLevel(R"({"type":"NFD"})")},
      {"lower",
       ByteLevel(R"({"type":"Sequence","normalizers":[{"type":"Strip","strip_left":true,"strip_right":true},
           {"type":"Lowercase"}]})")},
      {"flags", ByteLevel("null", kByteLevelCuts, flags)},
      {"flags of small letters", ByteLevel(R"({"type":"Lowercase"})", kByteLevelCuts, flags)},
      {"ignore", Changed(ByteLevel(),
                         [](Json& model) {
                           model["ignore_merges"] = true;
                           model["merges"] = {"t h"};
                         })},
      {"digits",
       ByteLevel("null", Sequence(R"({"type":"Digits","individual_digits":true},)" + kByteLevelCuts))},
      {"prefix", ByteLevel("null", in_front, Json::array({flags[0]}))},
      {"previous", ByteLevel("null", Split(kBlank, "MergedWithPrevious"))},
      {"next", ByteLevel("null", Split(kBlank, "MergedWithNext"))},
      {"removed", ByteLevel("null", Split(R"({"Regex":"\\s+"})", "Removed"))},
      {"contiguous", ByteLevel("null", Split(R"({"Regex":"a|1"})", "Contiguous"))},
      {"inverted", ByteLevel("null", Split(R"({"Regex":"the"})", "Isolated", true))},
      {"llama2", OfCharacters(kBlanksInFront, "null", kLlamaDecoder)},
      {"gemma",
       OfCharacters(
           R"({"type":"Replace","pattern":{"String":" "},"content":"▁"})",
           R"({"type":"Split","pattern":{"String":" "},"behavior":"MergedWithPrevious","invert":false})",
           kLlamaDecoder)},
      {"metaspace", OfCharacters("null", Metaspace("always", true), Metaspace("always", true))},
      {"metaspace first", OfCharacters("null", Metaspace("first", false), Metaspace("first", false))},
      {"unknown", Changed(OfCharacters(kBlanksInFront, "null", kLlamaDecoder, false),
                          [](Json& model) { model["fuse_unk"] = false; })},
      {"fused unknown", OfCharacters(kBlanksInFront, "null", kLlamaDecoder, false)},
      {"no unknown", Changed(OfCharacters(kBlanksInFront, "null", kLlamaDecoder, false),
                             [](Json& model) { model["unk_token"] = nullptr; })},
  };
}

Tokenizer OpenJson(const Json& json, const TokenizerCompanions& companions = {}) {
  return Tokenizer(std::make_unique<BpeEncoder>(ReadTokenizerJson(json.dump(), companions, "t.json")));
}

double Sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

TEST(TokenizerJsonTest, GivesTheIdsOfTheOriginal) {
  struct Row {
    const char* tokenizer;
    std::string text;
    Ids ids;
  };
  const Row rows[] = {
      {"gpt2", ""s, {}},
      {"gpt2", "the in"s, {257, 32, 260}},
      {"gpt2", "  the  a'S 1212 's"s, {32, 258, 32, 259, 39, 83, 32, 264, 264, 32, 39, 115}},
      {"gpt2", "caf\u00e9 cafe\u0301"s, {268, 32, 266, 101, 204, 129}},
      {"gpt2", "\n\n\n a"s, {269, 10, 259}},
      {"gpt2", " \u4e2d\U0001f600"s, {32, 228, 184, 173, 240, 159, 152, 128}},
      {"gpt2",
       "a\0\x7f"
       "\u00a0a"s,
       {97, 0, 127, 194, 160, 97}},
      {"llama3", "the in"s, {257, 32, 260}},
      {"llama3", "  the  a'S 1212 's"s, {32, 258, 32, 259, 39, 83, 32, 264, 49, 50, 32, 39, 115}},
      {"llama3", "     x"s, {263, 32, 120}},
      {"llama3", "\n\n\n a \n\n"s, {269, 10, 259, 32, 269}},
      {"llama3", "!!\n\nthe"s, {33, 33, 269, 257}},
      {"llama3", "1212121"s, {264, 49, 50, 264, 49}},
      {"nfc", "caf\u00e9 cafe\u0301 e\u0323\u0301"s, {268, 32, 268, 32, 225, 186, 185, 204, 129}},
      {"nfc", "\u1112\u1161\u11ab \u212b"s, {237, 149, 156, 32, 195, 133}},
      {"nfkc",
       "\ufb01\u00a0\u00bd \uff21 \uff76\uff9e"s,
       {102, 105, 32, 49, 226, 129, 132, 50, 32, 65, 32, 227, 130, 172}},
      {"nfd",
       "\u00e9\ud55c a\u0315\u0300"s,
       {101, 204, 129, 225, 132, 146, 225, 133, 161, 225, 134, 171, 259, 204, 128, 204, 149}},
      {"lower", "  THE \u0130\u00c9 \n"s, {257, 32, 105, 204, 135, 267}},
      {"flags", "the then (the) the_"s, {257, 258, 110, 32, 40, 257, 41, 258, 95}},
      {"flags", "a <l>b <r> \n c <lr>  d"s, {97, 273, 98, 32, 274, 99, 275, 100}},
      {"flags", "<s>x<s>"s, {272, 120, 272}},
      {"flags", "<lr<lrx CAF\u00c9 cafe"s, {60, 108, 114, 276, 32, 277, 32, 266, 101}},
      {"flags of small letters", "caf\u00e9 CAF\u00c9 THE the"s, {277, 32, 277, 258, 32, 257}},
      {"ignore", "the caf\u00e9 xthe"s, {257, 32, 99, 97, 102, 195, 169, 32, 120, 256, 101}},
      {"digits", "1212 a12"s, {49, 50, 49, 50, 259, 49, 50}},
      {"prefix", "the"s, {258}},
      {"prefix", "the<s>the<s> the"s, {258, 272, 258, 272, 258}},
      {"previous", "the the  a"s, {257, 32, 257, 32, 32, 97}},
      {"next", "the the  a"s, {257, 258, 32, 259}},
      {"removed", "the the  a"s, {257, 257, 97}},
      {"contiguous", "aa12ca"s, {97, 97, 49, 50, 99, 97}},
      {"inverted", "the the  a"s, {257, 32, 257, 32, 259}},
      {"llama2", "the a  ab"s, {268, 269, 259, 269, 261}},
      {"llama2", "h\u00e9<s>the</s> a"s, {259, 264, 198, 172, 1, 268, 2, 259, 269}},
      {"llama2", "\u2581the"s, {259, 268}},
      {"llama2", ""s, {}},
      {"gemma", "the a  ab"s, {263, 267, 269, 259, 269, 261}},
      {"gemma", "  the\n"s, {259, 268, 13}},
      {"metaspace", "the a  ab<s>the"s, {268, 269, 259, 269, 261, 1, 268}},
      {"metaspace", " a"s, {269}},
      {"metaspace first", "the a  ab<s>the"s, {268, 269, 259, 269, 261, 1, 263, 267}},
      {"unknown", "xy the\u4e2dz"s, {3, 0, 0, 12, 0, 0}},
      {"fused unknown", "xy the\u4e2dz"s, {3, 0, 12, 0}},
      {"no unknown", "xy tzhe"s, {3, 12}},
  };
  const std::map<std::string, Json> tokenizers = Tokenizers();
  std::set<std::string> seen;
  for (const Row& row : rows) {
    const Tokenizer tokenizer = OpenJson(tokenizers.at(row.tokenizer));
    EXPECT_EQ(tokenizer.EncodeWithSpecial(row.text), row.ids) << row.tokenizer << ": " << row.text;
    for (const bool special : {false, true}) {
      const TextTokens tokens = tokenizer.EncodeWithBytes(row.text, special);
      EXPECT_EQ(tokens.ids, special ? row.ids : tokenizer.Encode(row.text));
      if (!tokens.ids.empty()) {
        EXPECT_NEAR(Sum(tokens.bytes), static_cast<double>(row.text.size()), 1e-9)
            << row.tokenizer << row.text;
      }
      for (const double bytes : tokens.bytes) EXPECT_GE(bytes, 0);
    }
    seen.insert(row.tokenizer);
  }
  EXPECT_EQ(seen.size(), tokenizers.size());
}

TEST(TokenizerJsonTest, TextOfSpecialTokensIsOrdinaryText) {
  const auto tokenizers = Tokenizers();
  const Tokenizer flags = OpenJson(tokenizers.at("flags"));
  EXPECT_EQ(flags.Encode("<s>x"), (Ids{'<', 's', '>', 'x'}));
  // Those that are not special are found; a special one hides none that begins inside of it.
  EXPECT_EQ(flags.Encode("a<lrx <lr>"), (Ids{'a', 276, ' ', '<', 'l', 'r', '>'}));
  const Tokenizer llama2 = OpenJson(tokenizers.at("llama2"));
  EXPECT_EQ(llama2.EncodeWithSpecial("<s>"), Ids{1});
  EXPECT_EQ(llama2.Encode("<s>"), (Ids{259, 3 + '<', 3 + 's', 3 + '>'}));
}

TEST(TokenizerJsonTest, TokensStandForTheirBytesOfTheText) {
  const auto tokenizers = Tokenizers();
  using Bytes = std::vector<double>;
  EXPECT_EQ(OpenJson(tokenizers.at("gpt2")).EncodeWithBytes("the  \u4e2d").bytes, (Bytes{3, 1, 1, 1, 1, 1}));
  // The blank put in front is not the text's; one character's bytes are one each.
  EXPECT_EQ(OpenJson(tokenizers.at("llama2")).EncodeWithBytes("the a \u4e2d").bytes,
            (Bytes{3, 2, 1, 1, 1, 1}));
  // Three bytes become two, which are one token.
  EXPECT_EQ(OpenJson(tokenizers.at("nfc")).EncodeWithBytes("cafe\u0301 x").bytes, (Bytes{6, 1, 1}));
  // What is removed at the end counts with the last token.
  EXPECT_EQ(OpenJson(tokenizers.at("lower")).EncodeWithBytes("  THE x  ").bytes, (Bytes{5, 1, 3}));
  EXPECT_EQ(OpenJson(tokenizers.at("flags")).EncodeWithBytes("a <l>b", true).bytes, (Bytes{1, 4, 1}));
}

TEST(TokenizerJsonTest, DecodesWhatItEncodes) {
  const auto tokenizers = Tokenizers();
  EXPECT_EQ(OpenJson(tokenizers.at("metaspace")).Decode({268, 269, 261}), "the ab");
  for (const char* name : {"gpt2", "llama3", "flags", "llama2", "gemma"}) {
    const Tokenizer tokenizer = OpenJson(tokenizers.at(name));
    for (const std::string text : {"the a  ab", "h\u00e9 \u4e2d\U0001f600 a", "a\n\nb"}) {
      const std::string expected = name == "gemma"s && text.starts_with(' ') ? text.substr(1) : text;
      EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text)), expected) << name;
    }
    ExpectError([&] { tokenizer.Decode({99999}); }, {"99999", "outside the vocabulary"});
  }
  const Tokenizer flags = OpenJson(tokenizers.at("flags"));
  EXPECT_EQ(flags.Decode({272, 257, 276}), "the<lrx");
}

// One that takes the square of a word's length needs minutes for this.
TEST(TokenizerJsonTest, LongLinesTakeLinearTime) {
  const auto tokenizers = Tokenizers();
  for (const char* name : {"gpt2", "llama3", "nfc", "nfkc", "llama2", "metaspace"}) {
    const Tokenizer tokenizer = OpenJson(tokenizers.at(name));
    for (const char* unit : {"a", " ", "the", "\n", "\u0301\u0323", "1", ".", "\u2581"}) {
      std::string text;
      while (text.size() < (size_t{1} << 17)) text += unit;
      text += "x";
      const TextTokens tokens = tokenizer.EncodeWithBytes(text);
      EXPECT_NEAR(Sum(tokens.bytes), static_cast<double>(text.size()), 1e-3) << name << unit;
    }
  }
}

// A word by the heap of long words and by the loop of short ones.
TEST(TokenizerJsonTest, LongWordsAreMergedAsShortOnes) {
  const Tokenizer tokenizer = OpenJson(Tokenizers().at("previous"));
  const std::string part = "theininerthcafou";
  std::string text;
  for (int i = 0; i < 20; ++i) text += part + "x";
  Ids expected;
  for (int i = 0; i < 20; ++i) {
    for (const int32_t id : tokenizer.Encode(part + "x")) expected.push_back(id);
  }
  EXPECT_EQ(tokenizer.Encode(text), expected);
}

TEST(TokenizerJsonTest, SaysWhatATextBeginsWith) {
  Json json = Tokenizers().at("flags");
  const std::string plain = OpenJson(json).fingerprint();
  EXPECT_EQ(plain, Sha256Hex(json.dump()));
  EXPECT_EQ(OpenJson(json).text_bos(), std::nullopt);
  ExpectError([&] { OpenJson(json).bos(); }, {"no token that begins a text"});
  TokenizerCompanions companions{.adds_bos = std::nullopt, .bos = "<s>", .added = {}};
  EXPECT_EQ(OpenJson(json, companions).bos(), 272);
  EXPECT_EQ(OpenJson(json, companions).text_bos(), std::nullopt);
  EXPECT_EQ(OpenJson(json, companions).fingerprint(), plain);
  companions.adds_bos = true;
  EXPECT_EQ(OpenJson(json, companions).text_bos(), std::optional<int32_t>(272));
  EXPECT_NE(OpenJson(json, companions).fingerprint(), plain);
  companions.bos = "<none>";
  ExpectError([&] { OpenJson(json, companions); }, {"t.json", "bos_token"});
  json["post_processor"] = Read(R"({"type":"Sequence","processors":[{"type":"ByteLevel","trim_offsets":false},
      {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
       "pair":[],"special_tokens":{"<s>":{"id":"<s>","ids":[272],"tokens":["<s>"]}}}]})");
  EXPECT_EQ(OpenJson(json).text_bos(), std::optional<int32_t>(272));
  companions.adds_bos = false;
  EXPECT_EQ(OpenJson(json, companions).text_bos(), std::nullopt);
  EXPECT_NE(OpenJson(json, companions).fingerprint(), Sha256Hex(json.dump()));
}

TEST(TokenizerJsonTest, KnowsItsSizesAndTokensBesideTheFile) {
  const TemporaryDirectory directory;
  const Json json = Tokenizers().at("flags");
  test::WriteBytes(directory / "tokenizer.json", json.dump());
  EXPECT_TRUE(Tokenizer::IsIn(directory.path()));
  Tokenizer tokenizer = Tokenizer::Open(directory.path());
  EXPECT_EQ(tokenizer.vocab_size(), 272);
  EXPECT_EQ(tokenizer.vocab_size_with_added(), 278);
  EXPECT_EQ(Tokenizer::Open(directory / "tokenizer.json").fingerprint(), tokenizer.fingerprint());
  tokenizer.DropAddedFrom(276);
  EXPECT_EQ(tokenizer.EncodeWithSpecial("<lrx<s>"), (Ids{'<', 'l', 'r', 'x', 272}));
  test::WriteBytes(
      directory / "tokenizer_config.json",
      R"({"add_bos_token":true,"bos_token":{"content":"<s>"},"added_tokens_decoder":{"272":{"content":"<s>","special":true},
"290":{"content":"<|im_end|>","special":true}}})");
  const Tokenizer more = Tokenizer::Open(directory.path());
  EXPECT_EQ(more.text_bos(), std::optional<int32_t>(272));
  EXPECT_EQ(more.vocab_size_with_added(), 291);
  EXPECT_EQ(more.EncodeWithSpecial("<|im_end|>"), Ids{290});
  EXPECT_NE(more.fingerprint(), tokenizer.fingerprint());
  // Where there is tokenizer.model, it is the one.
  test::WriteBytes(directory / "tokenizer.model", "not a model");
  ExpectError([&] { Tokenizer::Open(directory.path()); }, {"tokenizer.model", "not a SentencePiece model"});
}

TEST(TokenizerJsonTest, NamesWhatItDoesNotUnderstand) {
  const Json good = ByteLevel();
  struct Row {
    const char* path;  // in the JSON
    const char* value;
    std::vector<std::string> parts;
  };
  const Row rows[] = {
      {"/model/type", R"("Unigram")", {"model", "Unigram", "expected BPE"}},
      {"/model/dropout", "0.1", {"dropout", "0.1"}},
      {"/model/end_of_word_suffix", R"("</w>")", {"end_of_word_suffix", "</w>"}},
      {"/model/unk_token", R"("<none>")", {"unk_token", "<none>"}},
      {"/model/mystery", "1", {"unknown key \"mystery\""}},
      {"/model/merges/0", R"("t h e")", {"merges", "t h e"}},
      {"/model/merges/0", R"("th")", {"merges", "\"th\""}},
      {"/model/merges/0", R"(["t"])", {"merges", "expected two tokens"}},
      {"/model/merges/0", "7", {"merges"}},
      {"/model/merges/0", R"("t ü")", {"merge 0", "vocab does not have"}},
      {"/model/vocab/a", R"("b")", {"vocab"}},
      {"/model/vocab/a", "98", {"vocab", "same id 98"}},
      {"/model/vocab/a", "-1", {"vocab", "id -1"}},
      {"/model/vocab/a", "99999999999", {"vocab", "99999999999"}},
      {"/normalizer", R"({"type":"Precompiled"})", {"normalizer", "Precompiled"}},
      {"/normalizer", R"({"type":"NFC","x":1})", {"normalizer", "\"x\""}},
      {"/normalizer", R"({"type":"Replace","pattern":{"Glob":"*"},"content":""})", {"pattern", "Glob"}},
      {"/normalizer", R"({"form":"NFC"})", {"normalizer", "no \"type\""}},
      {"/pre_tokenizer", R"({"type":"Whitespace"})", {"pre_tokenizer", "Whitespace"}},
      {"/pre_tokenizer",
       R"({"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"})",
       {"not a regular expression"}},
      {"/pre_tokenizer",
       R"({"type":"Split","pattern":{"Regex":"a\\b"},"behavior":"Isolated"})",
       {"\\b", "not supported"}},
      {"/pre_tokenizer", R"({"type":"Split","pattern":{"Regex":"[a&&b]"},"behavior":"Isolated"})", {"&&"}},
      {"/pre_tokenizer",
       R"({"type":"Split","pattern":{"Regex":"\\p{Emoji}"},"behavior":"Isolated"})",
       {"\\p{Emoji}"}},
      {"/pre_tokenizer", R"({"type":"Split","pattern":{"Regex":"a{2}+"},"behavior":"Isolated"})", {"{2}+"}},
      {"/pre_tokenizer",
       R"x({"type":"Split","pattern":{"Regex":"(?i:ss)"},"behavior":"Isolated"})x",
       {"letters ss"}},
      {"/pre_tokenizer",
       R"({"type":"Split","pattern":{"String":"a"},"behavior":"Glued"})",
       {"behavior", "Glued"}},
      {"/decoder", R"({"type":"CTC"})", {"decoder", "CTC"}},
      {"/decoder", R"({"type":"Fuse"})", {"pre_tokenizer is ByteLevel, but decoder is not"}},
      {"/post_processor", R"({"type":"BertProcessing"})", {"post_processor", "BertProcessing"}},
      {"/post_processor",
       R"({"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],"special_tokens":{}})",
       {"TemplateProcessing", "special_tokens"}},
      {"/added_tokens/0", R"({"id":97,"content":"q"})", {"added_tokens", "\"q\""}},
      {"/added_tokens/0", R"({"content":"q"})", {"added_tokens", "no \"id\""}},
      {"/added_tokens/0", R"({"id":300,"content":""})", {"added token 300 is empty"}},
      {"/added_tokens/0", R"({"id":300,"content":"q","special":1})", {"special"}},
      {"/version", R"("2.0")", {"version", "2.0"}},
      {"/more", "1", {"unknown key \"more\""}},
  };
  for (const Row& row : rows) {
    Json json = good;
    json[Json::json_pointer(row.path)] = Read(row.value);
    std::vector<std::string> parts = row.parts;
    parts.push_back("t.json");
    SCOPED_TRACE(row.path + " "s + row.value);
    ExpectError([&] { OpenJson(json); }, parts);
  }
  for (const char* text :
       {"{}", "[1]", "", "{\"model\":{}}", "{\"model\":{\"vocab\":{\"a\":0}}}", "{", "{\"a\":[[[", "7"})
    ExpectError([&] { ReadTokenizerJson(text, {}, "t.json"); }, {"t.json"});
  ExpectError([&] { OpenJson(good).Encode("ab\xff"); }, {"not UTF-8 at byte 2"});
}

// Real ones: $MICA_TOKENIZERS/NAME/tokenizer.json and vectors.json, an array of {"text", "ids"} as the
// original library gives them without the tokens that it puts around a text.
TEST(TokenizerJsonTest, AgreesWithTheVectorsOfRealOnes) {
  const char* path = std::getenv("MICA_TOKENIZERS");
  if (path == nullptr || !fs::is_directory(path)) GTEST_SKIP() << "MICA_TOKENIZERS is not set";
  size_t found = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(path)) {
    if (!fs::exists(entry.path() / "vectors.json")) continue;
    const Tokenizer tokenizer = Tokenizer::Open(entry.path());
    for (const Json& vector : ReadJson(entry.path() / "vectors.json")) {
      const std::string text = vector["text"];
      const TextTokens tokens = tokenizer.EncodeWithBytes(text, true);
      EXPECT_EQ(tokens.ids, vector["ids"].get<Ids>()) << entry.path() << ": " << text;
      if (!tokens.ids.empty()) {
        EXPECT_NEAR(Sum(tokens.bytes), static_cast<double>(text.size()), 1e-3) << text;
      }
    }
    ++found;
  }
  EXPECT_GT(found, 0u) << path;
}

}  // namespace
}  // namespace mica
