// What a tokenizer does, whatever it was read from (tokenizer.h).
#pragma once

#include <cstdint>
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

// Meanings as in Tokenizer. Thread-safe. `text` is valid UTF-8.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  virtual std::vector<int32_t> Encode(std::string_view text, bool special) const = 0;
  virtual TextTokens EncodeWithBytes(std::string_view text, bool special) const = 0;
  virtual std::string Decode(const std::vector<int32_t>& ids) const = 0;

  virtual std::optional<int32_t> bos() const = 0;
  virtual bool adds_bos() const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual int32_t vocab_size_with_added() const = 0;
  virtual const std::string& fingerprint() const = 0;
  virtual void DropAddedFrom(int32_t id) = 0;
};

}  // namespace mica
