#include "io/text/tokenizer.h"

#include <gmock/gmock.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <random>

#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/threads.h"
#include "io/text/datasets.h"
#include "tests/error_message.h"
#include "tests/io/container/test_files.h"
#include "tests/source_dir.h"
#include "tests/temporary_directory.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

using Ids = std::vector<int32_t>;

fs::path Demo() { return SourceDir() / "models/demo"; }

// The directory of texts beside the project, where there is one.
std::optional<fs::path> Data() {
  const char* path = std::getenv("MICA_DATA");
  if (path == nullptr || !fs::exists(path)) return std::nullopt;
  return path;
}

// What the library says of the whole text in one piece.
Ids Library(const fs::path& model, const std::string& text) {
  sentencepiece::SentencePieceProcessor processor;
  EXPECT_TRUE(processor.Load(model.string()).ok());
  std::vector<int> ids;
  EXPECT_TRUE(processor.Encode(text, &ids).ok());
  return {ids.begin(), ids.end()};
}

double Sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

TEST(TokenizerTest, EncodesTheReferenceText) {
  const Json reference = ReadJson(Demo() / "reference.json");
  const Tokenizer tokenizer = Tokenizer::Open(Demo());
  const std::string text = reference["text"];
  Ids ids = {tokenizer.bos()};
  for (const int32_t id : tokenizer.Encode(text)) ids.push_back(id);
  EXPECT_EQ(ids, reference["ids"].get<Ids>());
  EXPECT_EQ(tokenizer.Decode(ids), text);
  EXPECT_EQ(tokenizer.vocab_size(), 16000);
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.fingerprint(), Sha256Hex(ReadFile(Demo() / "tokenizer.model")));
  EXPECT_TRUE(tokenizer.Encode("").empty());
}

// Ids published with llama.cpp (tests/test-tokenizer-0-llama) and transformers (tests/models/llama) for the
// LLaMA tokenizer.
TEST(TokenizerTest, AgreesWithPublishedLlamaVectors) {
  if (!Data()) GTEST_SKIP() << "MICA_DATA is not set";
  const fs::path model = *Data() / "llama2_tokenizer.model";
  if (!fs::exists(model)) GTEST_SKIP() << model << " is missing";
  const std::pair<const char*, Ids> vectors[] = {
      {"", {}},
      {" ", {259}},
      {"  ", {1678}},
      {"   ", {268}},
      {"\t", {29871, 12}},
      {"\n", {29871, 13}},
      {"\t\n", {29871, 12, 13}},
      {"Hello world", {15043, 3186}},
      {" Hello world", {29871, 15043, 3186}},
      {"Hello World", {15043, 2787}},
      {" Hello World", {29871, 15043, 2787}},
      {" Hello World!", {29871, 15043, 2787, 29991}},
      {"Hello, world!", {15043, 29892, 3186, 29991}},
      {" Hello, world!", {29871, 15043, 29892, 3186, 29991}},
      {" this is \U0001F999.cpp", {29871, 445, 338, 29871, 243, 162, 169, 156, 29889, 8223}},
      {"w048 7tuijk dsdfhu", {281, 29900, 29946, 29947, 29871, 29955, 9161, 13535, 18031, 2176, 6905}},
      {"нещо на Български", {1538, 4851, 665, 1386, 29713, 1305}},
      {"កាន់តែពិសេសអាចខលចេញ",
       {29871, 31849, 31324, 31934, 228, 162, 142, 228,   161, 146, 228, 162,   133, 228, 161, 153,
        228,   161,   186,   31708, 228, 162, 132, 31708, 228, 161, 165, 31324, 228, 161, 136, 228,
        161,   132,   228,   161,   158, 228, 161, 136,   228, 162, 132, 228,   161, 140}},
      {"\U0001F680 (normal) \U0001F636\u200D\U0001F32B\uFE0F (multiple emojis concatenated) ✅ (only emoji "
       "that has its own token)",
       {29871, 243, 162,  157, 131,   313,  8945,  29897, 29871, 243,  162,   155,  185,   30722,
        243,   162, 143,  174, 30598, 313,  20787, 953,   3848,  275,  16125, 630,  29897, 29871,
        31681, 313, 6194, 953, 29877, 2397, 393,   756,   967,   1914, 5993,  29897}},
      {"Hello", {15043}},
      {" Hello", {29871, 15043}},
      {"  Hello", {259, 15043}},
      {"   Hello", {1678, 15043}},
      {"    Hello", {268, 15043}},
      {"    Hello\n    Hello", {268, 15043, 13, 1678, 15043}},
      {" (", {29871, 313}},
      {"Hello, y'all! How are you \U0001F601 ?",
       {15043, 29892, 343, 29915, 497, 29991, 1128, 526, 366, 29871, 243, 162, 155, 132, 1577}},
      {"Hello, y'all! How are you \U0001F601 ?我想在apple工作1314151天～",
       {15043, 29892, 343,   29915, 497,   29991, 1128,  526,   366,   29871,
        243,   162,   155,   132,   1577,  30672, 31522, 30505, 11548, 31041,
        30732, 29896, 29941, 29896, 29946, 29896, 29945, 29896, 30408, 30739}},
      {"\n =", {29871, 13, 353}},
      {"' era", {525, 3152}},
      {"3", {29871, 29941}},
      {"333", {29871, 29941, 29941, 29941}},
      {"The following string should be properly encoded: Hello.",
       {450, 1494, 1347, 881, 367, 6284, 18511, 29901, 15043, 29889}},
      {"But ird and ปี   ird   ด", {1205, 29871, 1823, 322, 29871, 31010, 30691, 1678, 1823, 1678, 30718}},
      {"A sample test", {319, 4559, 1243}},
      {"This is a test", {910, 338, 263, 1243}},
      {"生活的真谛是", {29871, 30486, 31704, 30210, 30848, 235, 179, 158, 30392}},
      {"Hi  Hello", {6324, 29871, 15043}},
      {"Hi   Hello", {6324, 259, 15043}},
      {"The quick brown fox jumps over the lazy dog.",
       {450, 4996, 17354, 1701, 29916, 432, 17204, 975, 278, 17366, 11203, 29889}},
  };
  const Tokenizer tokenizer = Tokenizer::Open(model);
  for (const auto& [text, ids] : vectors) {
    EXPECT_EQ(tokenizer.Encode(text), ids) << text;
    EXPECT_EQ(tokenizer.EncodeWithSpecial(text), ids) << text;
    EXPECT_EQ(tokenizer.Decode(ids), text);
  }
  EXPECT_EQ(tokenizer.EncodeWithSpecial("<s>"), Ids{1});
  EXPECT_EQ(tokenizer.Encode("<s>"), (Ids{529, 29879, 29958}));
}

// Control pieces in the text cut it; each part between them is encoded by itself, with a blank in front.
TEST(TokenizerTest, SpecialPiecesCutTheText) {
  const Tokenizer tokenizer = Tokenizer::Open(Demo());
  const auto join = [&](const std::vector<std::pair<std::string, int>>& parts) {
    Ids ids;
    for (const auto& [text, special] : parts) {
      for (const int32_t id : tokenizer.Encode(text)) ids.push_back(id);
      if (special >= 0) ids.push_back(special);
    }
    return ids;
  };
  EXPECT_EQ(tokenizer.EncodeWithSpecial("<s>Hello</s>"), join({{"", 1}, {"Hello", 2}}));
  EXPECT_EQ(tokenizer.EncodeWithSpecial("the <unk> said <unk><s> no"),
            join({{"the ", 0}, {" said ", 0}, {"", 1}, {" no", -1}}));
  EXPECT_EQ(tokenizer.EncodeWithSpecial("a<<s>b< s><unk"), join({{"a<", 1}, {"b< s><unk", -1}}));
  EXPECT_EQ(tokenizer.EncodeWithSpecial("plain"), tokenizer.Encode("plain"));
  EXPECT_TRUE(tokenizer.EncodeWithSpecial("").empty());
  for (const int32_t id : tokenizer.Encode("<unk> <s> </s>")) EXPECT_GT(id, 2);
}

// Encode cuts long texts and encodes the parts in parallel: the result must be the library's for the text in
// one piece, wherever blanks, blank marks, newlines and characters of several bytes fall.
TEST(TokenizerTest, CuttingALongTextChangesNothing) {
  const char* const words[] = {
      " ",      "  ",      "   ",     "\n",   "\n\n",          "\t",          "the",    " the", " of ",
      "\u2581", " \u2581", "\u2581 ", "aaaa", "\u00e9t\u00e9", " \U0001F600", "12 345", ".",    " ,",
      "<s>",    "\u3000",  "\u00a0",  "ing",  " un",           "\r\n"};
  std::mt19937 random(7);
  std::vector<fs::path> models = {Demo() / "tokenizer.model"};
  if (Data() && fs::exists(*Data() / "llama2_tokenizer.model"))
    models.push_back(*Data() / "llama2_tokenizer.model");
  for (const fs::path& model : models) {
    const Tokenizer tokenizer = Tokenizer::Open(model);
    for (int round = 0; round < 3; ++round) {
      std::string text;
      while (text.size() < 150000) text += words[random() % std::size(words)];
      // One stretch without a blank, longer than a part, and blanks at the end.
      if (round == 1) text.insert(80000, std::string(80000, 'x'));
      if (round == 2) text += std::string(70000, ' ');
      const Ids expected = Library(model, text);
      for (const int threads : {1, 2}) {
        SetThreads(threads);
        EXPECT_EQ(tokenizer.Encode(text), expected) << model << " round " << round;
      }
    }
  }
  SetThreads(0);
}

TEST(TokenizerTest, WholeTextsHaveThePublishedNumberOfWindows) {
  if (!Data()) GTEST_SKIP() << "MICA_DATA is not set";
  const Tokenizer tokenizer = Tokenizer::Open(Demo());
  const std::pair<const char*, size_t> sets[] = {
      {"wikitext2=wikitext2.test.raw", 165}, {"ptb=ptb.test.txt", 53}, {"c4=c4.eval.jsonl", 267}};
  for (const auto& [argument, windows] : sets) {
    DataSpec spec = ParseDataSpec(argument);
    spec.path = *Data() / spec.path;
    if (!fs::exists(spec.path)) GTEST_SKIP() << spec.path << " is missing";
    const std::string text = LoadText(spec).text;
    const TextTokens tokens = tokenizer.EncodeWithBytes(text);
    EXPECT_EQ((tokens.ids.size() + 1) / 2048, windows) << argument;
    EXPECT_NEAR(Sum(tokens.bytes), static_cast<double>(text.size()), 1e-3) << argument;
  }
}

// The demo tokenizer with `from`, which it has once behind `behind`, replaced by `to` of the same length.
Tokenizer Changed(const TemporaryDirectory& directory, std::string_view behind, std::string_view from,
                  std::string_view to) {
  std::string model = ReadFile(Demo() / "tokenizer.model");
  const size_t at = model.find(std::string(behind) + std::string(from));
  EXPECT_NE(at, std::string::npos);
  model.replace(at + behind.size(), from.size(), to);
  test::WriteBytes(directory / "tokenizer.model", model);
  return Tokenizer::Open(directory.path());
}

using Bytes = std::vector<double>;
using ::testing::DoubleEq;
using ::testing::ElementsAre;

TEST(TokenizerTest, TokensStandForTheirBytesOfTheText) {
  const Tokenizer tokenizer = Tokenizer::Open(Demo());
  // The blank put in front is not the text's; those between words are the next word's.
  EXPECT_EQ(tokenizer.EncodeWithBytes("the man of the").bytes, (Bytes{3, 4, 3, 4}));
  // Four byte pieces of a character of four bytes, behind the blank put in front.
  EXPECT_EQ(tokenizer.EncodeWithBytes("\U0001F600").bytes, (Bytes{0, 1, 1, 1, 1}));
  // With control pieces: "<s>" is three bytes of the text, and the blank that begins each part none.
  const TextTokens special = tokenizer.EncodeWithBytes("the<s>the</s>", true);
  EXPECT_EQ(special.ids, tokenizer.EncodeWithSpecial("the<s>the</s>"));
  EXPECT_EQ(special.bytes, (Bytes{3, 3, 3, 4}));
  EXPECT_TRUE(tokenizer.EncodeWithBytes("").bytes.empty());
  for (const std::string text :
       {"The capital of France", " two  blanks ", "\u00fcber \U0001F600\n", "a", "\u2581 \u2581"}) {
    for (const bool with_special : {false, true}) {
      const TextTokens tokens = tokenizer.EncodeWithBytes(text, with_special);
      EXPECT_EQ(tokens.ids, with_special ? tokenizer.EncodeWithSpecial(text) : tokenizer.Encode(text));
      EXPECT_NEAR(Sum(tokens.bytes), static_cast<double>(text.size()), 1e-9) << text;
    }
  }
}

TEST(TokenizerTest, BytesOfACutTextAreThoseOfTheWhole) {
  const Tokenizer tokenizer = Tokenizer::Open(Demo());
  std::string text;
  while (text.size() < 300'000) text += "the man of the\n\u4e2d\U0001F600 ";  // some pieces, some bytes
  const TextTokens tokens = tokenizer.EncodeWithBytes(text);
  const TextTokens once = tokenizer.EncodeWithBytes(text.substr(0, 1000));
  EXPECT_NEAR(Sum(tokens.bytes), static_cast<double>(text.size()), 1e-6);
  for (size_t t = 0; t + 1 < once.bytes.size(); ++t) EXPECT_EQ(tokens.bytes[t], once.bytes[t]) << t;
  EXPECT_LE(*std::max_element(tokens.bytes.begin(), tokens.bytes.end()), 4);
}

TEST(TokenizerTest, AnUnknownBlankIsThreePiecesAndOneByte) {
  const TemporaryDirectory directory;
  const Tokenizer tokenizer = Changed(directory, "\n\x03", "\u2581", "\u2582");  // no piece for the blank
  const TextTokens tokens = tokenizer.EncodeWithBytes("1 2");
  // E2 96 81 in front stands for nothing, E2 96 81 between for a blank.
  const double third = 1.0 / 3;
  EXPECT_THAT(tokens.bytes, ElementsAre(0, 0, 0, 1, DoubleEq(third), DoubleEq(third), DoubleEq(third), 1));
}

TEST(TokenizerTest, RemovedBlanksCountWithWhatFollows) {
  const TemporaryDirectory directory;
  const Tokenizer tokenizer =
      Changed(directory, std::string("identity\x12\0", 10), std::string("\x18\x01 \0", 4),
              "\x18\x01 \x01");  // remove_extra_whitespaces
  EXPECT_EQ(tokenizer.EncodeWithBytes("  the   man  ").bytes, (Bytes{5, 8}));
}

TEST(TokenizerTest, NamesWhatIsWrong) {
  const TemporaryDirectory directory;
  ExpectError([&] { Tokenizer::Open(directory.path()); },
              {directory.path().string(), "no tokenizer.model and no tokenizer.json"});
  test::WriteBytes(directory / "vocab.json", "{}");
  test::WriteBytes(directory / "merges.txt", "");
  ExpectError([&] { Tokenizer::Open(directory.path()); }, {"vocab.json and merges.txt", "fetch tokenizer.json"});
  const std::pair<const char*, const char*> forms[] = {
      {R"({"model":{"type":"WordPiece"}})", "WordPiece"},
      {"{}", "has no \"model\""},
      {"[1]", "expected an object"},
      {"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"},
  };
  for (const auto& [json, expected] : forms) {
    test::WriteBytes(directory / "tokenizer.json", json);
    ExpectError([&] { Tokenizer::Open(directory.path()); }, {"tokenizer.json", expected});
  }
  test::WriteBytes(directory / "tokenizer.model", "not a model");
  ExpectError([&] { Tokenizer::Open(directory.path()); }, {"tokenizer.model", "not a SentencePiece model"});
  test::WriteBytes(directory / "tokenizer.model",
                   "version https://git-lfs.github.com/spec/v1\nsize 499723\n");
  ExpectError([&] { Tokenizer::Open(directory.path()); }, {"tokenizer.model", "is a Git LFS pointer"});
  test::WriteBytes(directory / "tokenizer.model", "IQ== 0\nIg== 1\nIw== 2\nJA== 3\n");
  ExpectError([&] { Tokenizer::Open(directory.path()); },
              {"tokenizer.model", "is a tiktoken vocabulary", "LLaMA 3"});
  test::WriteBytes(directory / "tokenizer.model", "");
  ExpectError([&] { Tokenizer::Open(directory.path()); }, {"tokenizer.model"});
  const std::string whole = ReadFile(Demo() / "tokenizer.model");
  test::WriteBytes(directory / "tokenizer.model", whole.substr(0, whole.size() / 2));
  EXPECT_THROW(Tokenizer::Open(directory.path()), Error);
  ExpectError([] { Tokenizer::Open("/nonexistent/tokenizer.model"); }, {"/nonexistent/tokenizer.model"});

  const Tokenizer tokenizer = Tokenizer::Open(Demo());
  ExpectError([&] { tokenizer.Encode("ab\xff"); }, {"not UTF-8 at byte 2"});
  ExpectError([&] { tokenizer.Decode({5, 16000}); }, {"16000"});
  ExpectError([&] { tokenizer.Decode({-1}); }, {"-1"});
}

TEST(TokenizerTest, FilesBesideTheModelSayWhatATextBeginsWith) {
  const TemporaryDirectory directory;
  std::filesystem::copy_file(Demo() / "tokenizer.model", directory / "tokenizer.model");
  const auto bos = [&] { return Tokenizer::Open(directory.path()).text_bos(); };
  EXPECT_EQ(bos(), std::optional<int32_t>(1));
  for (const auto& [flag, expected] : {std::pair("true", true), {"null", true}, {"false", false}}) {
    test::WriteBytes(directory / "tokenizer_config.json", std::string("{\"add_bos_token\":") + flag + "}");
    EXPECT_EQ(bos().has_value(), expected) << flag;
  }
  EXPECT_EQ(Tokenizer::Open(directory / "tokenizer.model").text_bos(), std::optional<int32_t>(1));
  test::WriteBytes(directory / "tokenizer_config.json", "{\"add_bos_token\":1}");
  ExpectError([&] { bos(); }, {"tokenizer_config.json", "add_bos_token"});
}

TEST(TokenizerTest, WarnsOfATextWithAddedTokens) {
  const TemporaryDirectory directory;
  std::filesystem::copy_file(Demo() / "tokenizer.model", directory / "tokenizer.model");
  test::WriteBytes(directory / "added_tokens.json", "{\"<|user|>\":16000,\"<s>\":1}");
  test::WriteBytes(
      directory / "tokenizer_config.json",
      R"({"added_tokens_decoder":{"2":{"content":"</s>"},"16003":{"content":"<|end|>","special":true}}})");
  const Tokenizer tokenizer = Tokenizer::Open(directory.path());
  EXPECT_EQ(tokenizer.vocab_size(), 16000);
  EXPECT_EQ(tokenizer.vocab_size_with_added(), 16004);
  testing::internal::CaptureStderr();
  EXPECT_EQ(tokenizer.Encode("a <s> b <|user|> c"), Tokenizer::Open(Demo()).Encode("a <s> b <|user|> c"));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("the text holds \"<|user|>\", for which the model has a token of its own"), said.npos)
      << said;
  EXPECT_EQ(said.find("<s>"), said.npos) << said;
  for (const char* content : {"[]", "{\"a\":-1}", "{\"a\":\"b\"}", "{\"\":5}", "{\"a\":99999999999}"}) {
    test::WriteBytes(directory / "added_tokens.json", content);
    ExpectError([&] { Tokenizer::Open(directory.path()); }, {"added_tokens.json"});
  }
}

}  // namespace
}  // namespace mica
