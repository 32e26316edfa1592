// Keys of a tokenizer from the files of a checkpoint.
#include "model/gguf/vocabulary.h"

#include "base/file.h"
#include "io/text/tokenizer.h"
#include "io/text/sentencepiece_file.h"
#include "tests/error_message.h"
#include "tests/model/tiny_model.h"
#include "tests/source_dir.h"

namespace mica {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

class GgufVocabularyKeys : public testing::Test {
 protected:
  GgufVocabularyKeys() {
    fs::copy_file(demo_ / "tokenizer.model", directory_ / "tokenizer.model");
    config_.vocab = 16000;
  }
  template <typename T>
  T Value(const std::vector<GgufKey>& keys, const char* name) {
    const GgufValue* value = FindKey(keys, name);
    if (value == nullptr) throw std::runtime_error(name);
    return std::get<T>(*value);
  }
  template <typename T>
  std::vector<T> Values(const std::vector<GgufKey>& keys, const char* name) {
    return std::get<std::vector<T>>(Value<GgufArray>(keys, name).elements);
  }

  const fs::path demo_ = SourceDir() / "models" / "demo";
  TemporaryDirectory directory_;
  ModelConfig config_ = ParseConfig(TinyConfig(), "test");
};

TEST_F(GgufVocabularyKeys, PiecesOfTheDemo) {
  const std::vector<GgufKey> keys = TokenizerKeysOf(directory_.path(), config_);
  EXPECT_EQ(Value<std::string>(keys, "tokenizer.ggml.model"), "llama");
  const Strings tokens = Values<std::string>(keys, "tokenizer.ggml.tokens");
  const std::vector<float> scores = Values<float>(keys, "tokenizer.ggml.scores");
  const std::vector<int32_t> types = Values<int32_t>(keys, "tokenizer.ggml.token_type");
  ASSERT_EQ(tokens.size(), 16000u);
  ASSERT_EQ(scores.size(), 16000u);
  ASSERT_EQ(types.size(), 16000u);
  EXPECT_EQ(tokens[0], "<unk>");
  EXPECT_EQ(types[0], 2);
  EXPECT_EQ(tokens[1], "<s>");
  EXPECT_EQ(types[1], 3);
  EXPECT_EQ(tokens[3], "<0x00>");
  EXPECT_EQ(types[3], 6);
  EXPECT_EQ(types[300], 1);
  EXPECT_LT(scores[400], scores[300]);
  EXPECT_EQ(Value<uint32_t>(keys, "tokenizer.ggml.bos_token_id"), 1u);
  EXPECT_EQ(Value<uint32_t>(keys, "tokenizer.ggml.eos_token_id"), 2u);
  EXPECT_TRUE(Value<bool>(keys, "tokenizer.ggml.add_bos_token"));
  EXPECT_TRUE(Value<bool>(keys, "tokenizer.ggml.add_space_prefix"));
  EXPECT_EQ(FindKey(keys, "tokenizer.chat_template"), nullptr);
  EXPECT_EQ(TokenizerKeysIn(keys).size(), keys.size());
}

TEST_F(GgufVocabularyKeys, TokensBesideTheModel) {
  config_.vocab = 16004;
  config_.json["eos_token_id"] = {16001, 2};
  WriteFileAtomically(directory_ / "tokenizer_config.json", R"({"add_bos_token": false, "chat_template":
    [{"name": "tool", "template": "T"}, {"name": "default", "template": "{{ messages }}"}],
    "added_tokens_decoder": {"1": {"content": "<s>", "special": true}, "16001": {"content": "<|end|>", "special": true},
                             "16003": {"content": "\u2581word", "special": false}}})");
  const std::vector<GgufKey> keys = TokenizerKeysOf(directory_.path(), config_);
  const Strings tokens = Values<std::string>(keys, "tokenizer.ggml.tokens");
  const std::vector<int32_t> types = Values<int32_t>(keys, "tokenizer.ggml.token_type");
  EXPECT_EQ(Strings(tokens.begin() + 16000, tokens.end()),
            (Strings{"[PAD16000]", "<|end|>", "[PAD16002]", " word"}));
  EXPECT_EQ(std::vector<int32_t>(types.begin() + 16000, types.end()), (std::vector<int32_t>{5, 3, 5, 4}));
  EXPECT_EQ(Value<uint32_t>(keys, "tokenizer.ggml.eos_token_id"), 16001u);
  EXPECT_FALSE(Value<bool>(keys, "tokenizer.ggml.add_bos_token"));
  EXPECT_EQ(Value<std::string>(keys, "tokenizer.chat_template"), "{{ messages }}");
  WriteFileAtomically(directory_ / "chat_template.jinja", "J");
  EXPECT_EQ(Value<std::string>(TokenizerKeysOf(directory_.path(), config_), "tokenizer.chat_template"), "J");
  config_.vocab = 16003;
  ExpectError([&] { TokenizerKeysOf(directory_.path(), config_); },
              {"word", "16003", "do not belong together"});
  WriteFileAtomically(directory_ / "tokenizer_config.json",
                      R"({"added_tokens_decoder": {"16001": {"content": "<s>", "special": true}}})");
  ExpectError([&] { TokenizerKeysOf(directory_.path(), config_); }, {"token \"<s>\" stands there twice"});
}

TEST_F(GgufVocabularyKeys, Refusals) {
  config_.vocab = 15999;
  ExpectError([&] { TokenizerKeysOf(directory_.path(), config_); }, {"16000 pieces", "vocabulary of 15999"});
  config_.vocab = 16000;
  const std::string bytes = ReadFile(directory_ / "tokenizer.model");
  WriteFileAtomically(directory_ / "tokenizer.model", bytes.substr(0, 1000));
  ExpectError([&] { TokenizerKeysOf(directory_.path(), config_); },
              {"tokenizer.model", "not a SentencePiece model"});
  fs::remove(directory_ / "tokenizer.model");
  EXPECT_EQ(Value<std::string>(TokenizerKeysOf(directory_.path(), config_), "tokenizer.ggml.model"),
            "no_vocab");
  WriteFileAtomically(directory_ / "tokenizer.json", "{}");
  ExpectError([&] { TokenizerKeysOf(directory_.path(), config_); },
              {"tokenizer.json: has no \"model\""});
  fs::rename(directory_ / "tokenizer.json", directory_ / "vocab.json");
  ExpectError([&] { TokenizerKeysOf(directory_.path(), config_); }, {"vocab.json", "supported are tokenizer.model"});
}

// One piece of a tokenizer.model.
std::string PieceField(const std::string& text, float score, char type) {
  std::string piece = std::string("\x0a") + static_cast<char>(text.size()) + text + "\x15";
  piece.append(reinterpret_cast<const char*>(&score), sizeof(score));
  piece += std::string("\x18") + type;
  return std::string("\x0a") + static_cast<char>(piece.size()) + piece;
}

TEST_F(GgufVocabularyKeys, TokensOfBlanksThatTheUserDefined) {
  WriteFileAtomically(directory_ / "tokenizer.model", PieceField("<unk>", 0, 2) + PieceField("\u2581a", -1, 1) +
                                                          PieceField("\u2581\u2581", 0, 4) +
                                                          std::string("\x12\x02\x18\x02", 4));
  config_.vocab = 3;
  const std::vector<GgufKey> keys = TokenizerKeysOf(directory_.path(), config_);
  EXPECT_EQ(Values<std::string>(keys, "tokenizer.ggml.tokens"), (Strings{"<unk>", "\u2581a", "  "}));
}

TEST_F(GgufVocabularyKeys, FileOfPieces) {
  const SentencePieceFile file = ParseSentencePieceFile(ReadFile(demo_ / "tokenizer.model"), "t");
  EXPECT_TRUE(file.merges);
  EXPECT_TRUE(file.blank_in_front);
  EXPECT_EQ(file.pieces.size(), static_cast<size_t>(Tokenizer::Open(demo_).vocab_size()));
  EXPECT_EQ(file.bos, Tokenizer::Open(demo_).bos());
  ExpectError([] { ParseSentencePieceFile("\x0a\x05x", "t"); }, {"t: is not a SentencePiece model"});
}

}  // namespace
}  // namespace mica
