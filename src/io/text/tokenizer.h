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

class Tokenizer {
 public:
  // Reads tokenizer.model of a checkpoint directory, and what tokenizer_config.json and added_tokens.json say
  // besides, or the file alone. Throws Error; what is there in place of a SentencePiece model (tokenizer.json
  // alone, LLaMA 3's tiktoken vocabulary, a Git LFS pointer) is named for what it is.
  static Tokenizer Open(const std::filesystem::path& path);
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
  std::string Decode(const std::vector<int32_t>& ids) const;

  // Bytes of text that a piece stands for: 1 for a byte piece, 0 for a control piece, otherwise the bytes of
  // its surface with each "\u2581" (the mark of a blank) counted as 1. Over Encode(text) they sum to the
  // text's bytes + 1, the blank that LLaMA puts in front.
  size_t PieceBytes(int32_t id) const;
  int32_t bos() const;
  // The token that a text begins with: bos(), or none where tokenizer_config.json says add_bos_token false.
  std::optional<int32_t> text_bos() const;
  int32_t vocab_size() const;
  // Ids that the model must know for the tokens that the files beside tokenizer.model add: 1 + the highest,
  // or vocab_size() when they add none. Encode does not use those tokens, and warns of a text that holds one.
  int32_t vocab_size_with_added() const;
  // SHA-256 of tokenizer.model.
  const std::string& fingerprint() const;

 private:
  Tokenizer();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mica
