// Text to token ids through SentencePiece, as the LLaMA tokenizer does it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mica {

// The tokens of a text.
struct TextTokens {
  std::vector<int32_t> ids;   // [tokens]
  std::vector<double> bytes;  // [tokens] of the text that the token stands for; need not be whole
};

class Tokenizer {
 public:
  // Reads tokenizer.model of a checkpoint directory, and what tokenizer_config.json and added_tokens.json say
  // besides, or the file alone. Throws Error; what is there in place of a SentencePiece model (tokenizer.json
  // alone, LLaMA 3's tiktoken vocabulary, a Git LFS pointer) is named for what it is.
  static Tokenizer Open(const std::filesystem::path& path);
  // Whether a checkpoint directory comes with one that Open would read.
  static bool IsIn(const std::filesystem::path& directory);
  // The same for the bytes of a tokenizer.model; `where` is its name in errors.
  static Tokenizer Parse(const std::string& model, const std::string& where);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Ids of the whole text, without BOS; bytes outside the vocabulary become byte pieces; the text of control
  // pieces ("<s>") is ordinary text, as in the original LLaMA tokenizer. `text` must be valid UTF-8
  // (datasets.h checks); throws Error otherwise.
  std::vector<int32_t> Encode(std::string_view text) const;
  // As Encode, but "<s>", "</s>" and "<unk>" in the text become their control ids (what Hugging Face's
  // LlamaTokenizer does).
  std::vector<int32_t> EncodeWithSpecial(std::string_view text) const;
  // The ids of Encode, or of EncodeWithSpecial where `special`, and the bytes of the text as it was given
  // that each token stands for: from the end of what the tokens before it stand for to its own end, so over
  // all tokens they sum to the text's. What normalisation changes or removes counts as it was in the text,
  // at the end of the text with the last token; an added blank counts nothing; the byte pieces of one
  // character share its bytes evenly.
  TextTokens EncodeWithBytes(std::string_view text, bool special = false) const;
  std::string Decode(const std::vector<int32_t>& ids) const;

  int32_t bos() const;
  // The token that a text begins with: bos(), or none where tokenizer_config.json says add_bos_token false.
  std::optional<int32_t> text_bos() const;
  int32_t vocab_size() const;
  // Ids that the model must know for the tokens that the files beside tokenizer.model add: 1 + the highest,
  // or vocab_size() when they add none. Encode does not use those tokens, and warns of a text that holds one.
  int32_t vocab_size_with_added() const;
  // SHA-256 of tokenizer.model; another one where no BOS is put in front of a text.
  const std::string& fingerprint() const;

 private:
  Tokenizer();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mica
