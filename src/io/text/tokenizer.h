// Text to token ids through SentencePiece, as the LLaMA tokenizer does it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
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
  // Reads tokenizer.model of a checkpoint directory (or the file itself). Throws Error: a directory that has
  // only tokenizer.json (a byte-level BPE: LLaMA 3, Qwen2) is refused with that name.
  static Tokenizer Open(const std::filesystem::path& path);
  // Whether a checkpoint directory comes with one that Open would read.
  static bool IsIn(const std::filesystem::path& directory);
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
  int32_t vocab_size() const;
  // SHA-256 of tokenizer.model.
  const std::string& fingerprint() const;

 private:
  Tokenizer();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mica
