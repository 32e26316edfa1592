#include "io/text/gguf_vocabulary.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <numeric>

#include "io/text/byte_characters.h"
#include "tests/error_message.h"

namespace mica {
namespace {

using Ids = std::vector<int32_t>;

double Sum(const std::vector<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

// A byte's id is its value; 256 to 258 are merges, then a control and a user-defined token.
GgufVocabulary ByteLevel(const std::string& pre) {
  GgufVocabulary v;
  v.model = "gpt2";
  v.pre = pre;
  for (int byte = 0; byte < 256; ++byte)
    v.tokens.push_back(CharactersOfBytes(std::string(1, static_cast<char>(byte))));
  for (const char* token : {"12", "th", "Ġth"}) v.tokens.push_back(token);
  v.merges = {"1 2", "t h", "Ġ th"};
  v.token_type.assign(v.tokens.size(), 1);
  v.tokens.insert(v.tokens.end(), {"<|end|>", "<tool>", "[PAD261]"});
  v.token_type.insert(v.token_type.end(), {3, 4, 5});
  v.bos = 259;
  return v;
}

TEST(GgufVocabularyTest, ByteLevelAsItsPreSays) {
  EXPECT_EQ(FromGguf(ByteLevel("llama-bpe"), "g").Encode("th th 12121"),
            (Ids{257, 258, 32, 256, 49, 256 - 206, 49}));
  const std::pair<const char*, Ids> rows[] = {
      // three digits at most, digits one by one, all of a number
      {"llama-bpe", {257, 258, 32, 256, 256, 10}},
      {"qwen2", {257, 258, 32, 49, 50, 49, 50, 10}},
      {"gpt-2", {257, 258, 32, 256, 256, 10}},
  };
  EXPECT_EQ(FromGguf(ByteLevel("qwen2"), "g").Encode("th th 1212\n"), rows[1].second);
  EXPECT_EQ(FromGguf(ByteLevel("gpt-2"), "g").Encode("th th 1212\n"), rows[2].second);
  for (const char* pre :
       {"", "default", "gpt-2", "smollm", "starcoder", "refact", "llama-bpe", "dbrx", "qwen2", "qwen35",
        "tekken", "gpt-4o", "deepseek-llm", "deepseek-coder", "deepseek-v3"}) {
    const Tokenizer tokenizer = FromGguf(ByteLevel(pre), "g");
    const std::string text = "th \u00e9\u4e2d 12\n\n x<|end|><tool>";
    const TextTokens tokens = tokenizer.EncodeWithBytes(text);
    EXPECT_NEAR(Sum(tokens.bytes), static_cast<double>(text.size()), 1e-9) << pre;
    EXPECT_EQ(tokenizer.Decode(tokens.ids), text) << pre;
    EXPECT_EQ(tokens.ids.back(), 260) << pre;
    EXPECT_EQ(std::ranges::count(tokens.ids, 259), 0) << pre;
    EXPECT_EQ(std::ranges::count(tokenizer.EncodeWithSpecial(text), 259), 1) << pre;
    EXPECT_EQ(tokenizer.vocab_size(), 262);
  }
}

TEST(GgufVocabularyTest, SaysWhatATextBeginsWith) {
  GgufVocabulary v = ByteLevel("llama-bpe");
  EXPECT_EQ(FromGguf(v, "g").text_bos(), std::optional<int32_t>(259));
  v.add_bos = false;
  EXPECT_EQ(FromGguf(v, "g").text_bos(), std::nullopt);
  EXPECT_EQ(FromGguf(v, "g").bos(), 259);
  EXPECT_EQ(FromGguf(ByteLevel("qwen2"), "g").text_bos(), std::nullopt);
  v = ByteLevel("llama-bpe");
  EXPECT_NE(FromGguf(v, "g").fingerprint(), FromGguf(ByteLevel("qwen2"), "g").fingerprint());
  v.bos = std::nullopt;
  EXPECT_EQ(FromGguf(v, "g").text_bos(), std::nullopt);
}

// Merging by score: "▁ab" is reached through "ab" or "▁a", whichever has the higher score.
GgufVocabulary ByScore() {
  GgufVocabulary v;
  v.model = "llama";
  const auto add = [&](const std::string& token, int type, float score) {
    v.tokens.push_back(token);
    v.token_type.push_back(type);
    v.scores.push_back(score);
  };
  add("<unk>", 2, 0);
  add("<s>", 3, 0);
  for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), 6, 0);
  for (const char* character : {"▁", "a", "b"}) add(character, 1, -100);  // 258 to 260
  add("ab", 1, -1);                                                       // 261
  add("▁a", 1, -2);
  add("▁ab", 1, -3);
  add("ba", 1, -1);  // as "ab": the leftmost is first
  add("cc", 1, -4);  // of a character that is no token
  v.bos = 1;
  return v;
}

TEST(GgufVocabularyTest, MergesByScore) {
  GgufVocabulary v = ByScore();
  const Tokenizer tokenizer = FromGguf(v, "g");
  EXPECT_EQ(tokenizer.Encode("ab a"), (Ids{263, 262}));
  EXPECT_EQ(tokenizer.Encode("aba"), (Ids{263, 259}));
  EXPECT_EQ(tokenizer.Encode("bab"), (Ids{258, 264, 260}));
  EXPECT_EQ(tokenizer.Encode("ccc"), (Ids{258, 265, 2 + 'c'}));
  EXPECT_EQ(tokenizer.Encode("\u00e9"), (Ids{258, 2 + 0xC3, 2 + 0xA9}));
  EXPECT_EQ(tokenizer.EncodeWithSpecial("<s>ab"), (Ids{1, 263}));
  EXPECT_EQ(tokenizer.text_bos(), std::optional<int32_t>(1));
  EXPECT_EQ(tokenizer.EncodeWithBytes("ab \u00e9ab").bytes, (std::vector<double>{2, 1, 1, 1, 2}));
  for (const std::string text : {"ab a", " a  b", "\u00e9\u4e2d c", "\n\n"})
    EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text)), text);
  v.add_space_prefix = false;
  EXPECT_EQ(FromGguf(v, "g").Encode("ab a"), (Ids{261, 262}));
  EXPECT_EQ(FromGguf(v, "g").Decode({261, 262}), "ab a");
}

TEST(GgufVocabularyTest, NamesWhatIsWrong) {
  const auto refuse = [](GgufVocabulary v, const auto& change, const std::vector<std::string>& parts) {
    change(v);
    ExpectError([&] { FromGguf(v, "x.gguf"); }, parts);
  };
  using V = GgufVocabulary;
  const V bytes = ByteLevel("qwen2"), scores = ByScore();
  refuse(bytes, [](V& v) { v.pre = "falcon"; }, {"x.gguf", "tokenizer.ggml.pre", "falcon", "llama-bpe"});
  refuse(bytes, [](V& v) { v.model = "t5"; }, {"tokenizer.ggml.model", "t5"});
  refuse(bytes, [](V& v) { v.tokens.clear(); }, {"tokens is empty"});
  refuse(bytes, [](V& v) { v.token_type.pop_back(); }, {"token_type", "261 entries", "262 tokens"});
  refuse(bytes, [](V& v) { v.token_type[3] = 7; }, {"token 3 has type 7"});
  refuse(bytes, [](V& v) { v.tokens[3] = "\xff"; }, {"token 3", "not UTF-8"});
  refuse(bytes, [](V& v) { v.tokens[3] = "a"; }, {"token \"a\" has two ids"});
  refuse(bytes, [](V& v) { v.bos = 262; }, {"bos_token_id is 262", "0 to 261"});
  refuse(bytes, [](V& v) { v.merges[1] = "th"; }, {"merge 1 \"th\"", "blank"});
  refuse(bytes, [](V& v) { v.merges[1] = "t x"; }, {"merge 1 \"t x\"", "tokens has"});
  refuse(bytes, [](V& v) { v.merges[1] = "t \u4e2d"; }, {"merge 1", "byte-level"});
  refuse(scores, [](V& v) { v.scores.pop_back(); }, {"scores", "265 entries"});
  refuse(scores, [](V& v) { v.scores[260] = std::numeric_limits<float>::quiet_NaN(); },
         {"token 260", "score"});
}

}  // namespace
}  // namespace mica
