// How a tokenizer makes text of its tokens.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "io/text/pattern.h"

namespace mica {

// The byte that a piece of the form "<0xE4>" stands for.
std::optional<char> ByteOfToken(std::string_view token);

// Such pieces are bytes.
struct BytesOfTokens {};
struct ReplaceInTokens {
  Pattern pattern;
  std::string by;
};
// All tokens become one.
struct FuseTokens {};
// Removes up to `start` and `stop` of a character at the ends of each token.
struct StripTokens {
  std::string content;  // one character
  size_t start, stop;
};
// `replacement` means a blank, and none in the first token where one was put in front.
struct BlanksOfTokens {
  std::string replacement;  // one character
  bool in_front;
};

using DecoderStep = std::variant<BytesOfTokens, ReplaceInTokens, FuseTokens, StripTokens, BlanksOfTokens>;

class Decoder {
 public:
  void Add(DecoderStep step) { steps_.push_back(std::move(step)); }
  bool empty() const { return steps_.empty(); }
  // What stands between the tokens' texts at the end.
  void set_separator(std::string separator) { separator_ = std::move(separator); }
  std::string Decode(std::vector<std::string> tokens) const;

 private:
  std::vector<DecoderStep> steps_;
  std::string separator_;
};

}  // namespace mica
