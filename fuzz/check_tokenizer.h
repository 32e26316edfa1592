// What must hold of any tokenizer that could be read: ids that exist, that stand for the bytes of the text, and
// that are decoded.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string_view>

#include "base/error.h"
#include "io/text/tokenizer.h"

namespace mica {

inline constexpr size_t kMaxFuzzedTextBytes = 4096;

inline void CheckTokenizer(const Tokenizer& tokenizer, std::string_view text) {
  MICA_CHECK(tokenizer.vocab_size_with_added() >= tokenizer.vocab_size());
  for (const bool special : {false, true}) {
    const TextTokens tokens = tokenizer.EncodeWithBytes(text, special);
    MICA_CHECK(tokens.ids.size() == tokens.bytes.size());
    MICA_CHECK(tokens.ids == (special ? tokenizer.EncodeWithSpecial(text) : tokenizer.Encode(text)));
    for (const int32_t id : tokens.ids) MICA_CHECK(id >= 0 && id < tokenizer.vocab_size_with_added());
    for (const double bytes : tokens.bytes) MICA_CHECK(bytes >= 0);
    const double sum = std::accumulate(tokens.bytes.begin(), tokens.bytes.end(), 0.0);
    MICA_CHECK(tokens.ids.empty() || std::abs(sum - static_cast<double>(text.size())) < 1e-6);
    tokenizer.Decode(tokens.ids);
  }
}

}  // namespace mica
