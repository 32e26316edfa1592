// Text to token ids, as the tokenizer that a model comes with does it: SentencePiece's tokenizer.model,
// tokenizer.json (byte-pair encoding of Hugging Face's tokenizers library), or the vocabulary inside a GGUF
// file (gguf_vocabulary.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/text/text_encoder.h"

namespace mica {

class Tokenizer {
 public:
  // Reads tokenizer.model of a checkpoint directory, or where there is none tokenizer.json, and what
  // tokenizer_config.json and added_tokens.json say besides; or one of the two files alone. Throws Error;
  // what is there in place of a tokenizer (LLaMA 3's tiktoken vocabulary, a Git LFS pointer) is named for
  // what it is.
  static Tokenizer Open(const std::filesystem::path& path);
  // Whether a checkpoint directory comes with one that Open would read.
  static bool IsIn(const std::filesystem::path& directory);
  // The same for the bytes of a tokenizer.model; `where` is its name in errors.
  static Tokenizer Parse(const std::string& model, const std::string& where);
  explicit Tokenizer(std::unique_ptr<TextEncoder> encoder);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Ids of the whole text, without BOS; bytes outside the vocabulary become byte pieces; the text of special
  // tokens ("<s>", "<|im_start|>") is ordinary text. Tokens that tokenizer.json adds without calling them
  // special are found. `text` must be valid UTF-8 (datasets.h checks); throws Error otherwise.
  std::vector<int32_t> Encode(std::string_view text) const;
  // As Encode, but special tokens in the text become their ids: for tokenizer.model "<s>", "</s>" and "<unk>"
  // (what Hugging Face's LlamaTokenizer does), for the others all that are special (what Hugging Face's
  // library always does).
  std::vector<int32_t> EncodeWithSpecial(std::string_view text) const;
  // The ids of Encode, or of EncodeWithSpecial where `special`, and the bytes of the text as it was given
  // that each token stands for: from the end of what the tokens before it stand for to its own end, so over
  // all tokens they sum to the text's. What normalisation changes or removes counts as it was in the text,
  // at the end of the text with the last token; an added blank counts nothing; the byte pieces of one
  // character share its bytes evenly.
  TextTokens EncodeWithBytes(std::string_view text, bool special = false) const;
  // Without special tokens. Of tokenizer.json and GGUF the bytes that the tokens stand for, which are not
  // UTF-8 where a character is cut.
  std::string Decode(const std::vector<int32_t>& ids) const;

  // The token that begins a text; has_bos: whether there is one. bos() throws Error where there is none.
  bool has_bos() const;
  int32_t bos() const;
  // The token that a text begins with: bos(), or none. tokenizer_config.json's add_bos_token says it; without
  // it a text has one where it is of tokenizer.model, or where the post-processor of tokenizer.json puts it.
  std::optional<int32_t> text_bos() const;
  // 1 + the highest id of the vocabulary proper.
  int32_t vocab_size() const;
  // Ids that the model must know for the tokens that are added to the vocabulary: 1 + the highest, or
  // vocab_size() when there are none. Of tokenizer.model Encode does not use those tokens, and warns of a
  // text that holds one.
  int32_t vocab_size_with_added() const;
  // Added tokens from this id on are ordinary text: the model has no rows for them.
  void DropAddedFrom(int32_t id);
  // SHA-256 of tokenizer.model or tokenizer.json, another one where what lies beside it changes the ids or
  // the BOS in front of a text; of what is in a GGUF vocabulary.
  const std::string& fingerprint() const;

 private:
  std::unique_ptr<TextEncoder> encoder_;
};

}  // namespace mica
