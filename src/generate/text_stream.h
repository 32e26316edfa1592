// Tokens to text while they come: whole characters, and nothing that may turn out to belong to a stop string.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/text/tokenizer.h"

namespace mica {

// The text of tokens that follow others: what all of them decode to, less what those before decode to.
class TokenText {
 public:
  // before: the tokens in front, whose text is not wanted.
  TokenText(const Tokenizer& tokenizer, std::span<const int32_t> before);
  // The text that is certain with this token: whole characters of UTF-8.
  std::string Add(int32_t id);
  // What is left at the end: bytes that are no whole character become U+FFFD.
  std::string Finish();

 private:
  std::string New() const;
  const Tokenizer* tokenizer_;
  std::vector<int32_t> ids_;  // a few tokens of context, then those whose text is not out yet
  size_t out_;                // tokens of ids_ whose text is out
};

// Holds back the end of a text as long as a stop string may begin there.
class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}
  // What can be shown with this piece; nothing from the first stop string on, when found() becomes true.
  std::string Add(const std::string& piece);
  std::string Finish();
  bool found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool found_ = false;
};

}  // namespace mica
