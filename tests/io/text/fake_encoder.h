// A tokenizer whose tokens are the bytes of the text, with the BOS that a test wants.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/text/text_encoder.h"
#include "io/text/tokenizer.h"

namespace mica::test {

class FakeEncoder : public TextEncoder {
 public:
  FakeEncoder(std::optional<int32_t> bos, bool adds_bos) : bos_(bos), adds_bos_(adds_bos) {}
  std::vector<int32_t> Encode(std::string_view text, bool) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
    return ids;
  }
  TextTokens EncodeWithBytes(std::string_view text, bool special) const override {
    return {Encode(text, special), std::vector<double>(text.size(), 1.0)};
  }
  std::string Decode(const std::vector<int32_t>& ids) const override { return {ids.begin(), ids.end()}; }
  std::optional<int32_t> bos() const override { return bos_; }
  bool adds_bos() const override { return adds_bos_; }
  int32_t vocab_size() const override { return 512; }
  int32_t vocab_size_with_added() const override { return 512; }
  const std::string& fingerprint() const override { return fingerprint_; }
  void DropAddedFrom(int32_t) override {}

 private:
  const std::optional<int32_t> bos_;
  const bool adds_bos_;
  const std::string fingerprint_ = "fake";
};

// bos: the token that it has; adds: whether it says that texts begin with it.
inline Tokenizer FakeTokenizer(std::optional<int32_t> bos, bool adds) {
  return Tokenizer(std::make_unique<FakeEncoder>(bos, adds));
}

}  // namespace mica::test
