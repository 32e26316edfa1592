// The tokens of a vocabulary by id, while they are collected for a GGUF file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/text/gguf_vocabulary.h"

namespace mica {

// Values of tokenizer.ggml.token_type.
enum GgufTokenType : int32_t {
  kNormalToken = 1,
  kUnknownToken,
  kControlToken,
  kUserDefinedToken,
  kUnusedToken,
  kByteToken
};

inline constexpr float kScoreOfAdded = -1000.0f;           // of a token that nothing is merged to
inline constexpr std::string_view kBlankPiece = "\u2581";  // how SentencePiece writes a blank
// The text with blanks as they are.
std::string WithBlanks(std::string_view text);

class TokenTable {
 public:
  // As many tokens as the model has rows; `where` is named in errors.
  TokenTable(size_t rows, std::string where);
  // The last one counts. Throws Error when the model has no row for it.
  void Put(int64_t id, std::string text, int32_t type, float score);
  int32_t type(size_t id) const { return types_[id]; }
  // Sets tokens, token_type and scores; rows without a token are "[PAD32000]", unused. Throws Error when a
  // text stands there twice.
  void MoveTo(GgufVocabulary& vocabulary);

 private:
  std::string where_;
  std::vector<std::string> texts_;
  std::vector<float> scores_;
  std::vector<int32_t> types_;
};

}  // namespace mica
