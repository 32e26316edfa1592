// tokenizer.model through the SentencePiece library, as the LLaMA tokenizer does it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/text/text_encoder.h"
#include "io/text/tokenizer_companions.h"

namespace mica {

class SentencePieceEncoder : public TextEncoder {
 public:
  // Of the bytes of a tokenizer.model; throws Error naming `where`.
  SentencePieceEncoder(const std::string& model, const std::string& where);
  ~SentencePieceEncoder() override;

  // What the files beside it say.
  void Take(const TokenizerCompanions& companions);

  std::vector<int32_t> Encode(std::string_view text, bool special) const override;
  TextTokens EncodeWithBytes(std::string_view text, bool special) const override;
  std::string Decode(const std::vector<int32_t>& ids) const override;

  std::optional<int32_t> bos() const override;
  bool adds_bos() const override;
  int32_t vocab_size() const override;
  int32_t vocab_size_with_added() const override;
  const std::string& fingerprint() const override;
  void DropAddedFrom(int32_t) override {}  // they are never used

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mica
