// A tokenizer by byte-pair encoding: added tokens, normaliser, pre-tokenizer, merging, decoder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/text/added_tokens.h"
#include "io/text/bpe.h"
#include "io/text/decoder.h"
#include "io/text/normalizer.h"
#include "io/text/pre_tokenizer.h"
#include "io/text/text_encoder.h"

namespace mica {

// The parts of one, as whoever reads it finds them.
struct BpeParts {
  AddedTokens added;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  BpeModel model;
  Decoder decoder;  // of the texts of the tokens that Decode is given, without special ones
  std::optional<int32_t> bos;
  bool adds_bos = false;
  std::string fingerprint;
};

class BpeEncoder : public TextEncoder {
 public:
  explicit BpeEncoder(BpeParts parts);

  std::vector<int32_t> Encode(std::string_view text, bool special) const override;
  TextTokens EncodeWithBytes(std::string_view text, bool special) const override;
  std::string Decode(const std::vector<int32_t>& ids) const override;

  std::optional<int32_t> bos() const override { return parts_.bos; }
  bool adds_bos() const override { return parts_.adds_bos; }
  int32_t vocab_size() const override { return parts_.model.pieces.size(); }
  int32_t vocab_size_with_added() const override;
  const std::string& fingerprint() const override { return parts_.fingerprint; }
  void DropAddedFrom(int32_t id) override { parts_.added.DropFrom(id); }

 private:
  // Appends ids and, if wanted, where in the text what each token stands for ends.
  void Run(std::string_view text, bool special, std::vector<int32_t>& ids, std::vector<double>* ends) const;

  BpeParts parts_;
};

}  // namespace mica
