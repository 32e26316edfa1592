#include "generate/chat_tokens.h"

#include <algorithm>

namespace mica {

std::vector<int32_t> ChatTokens(const std::vector<ChatSegment>& segments, const Tokenizer& tokenizer) {
  const bool plain = std::none_of(segments.begin(), segments.end(), [&](const ChatSegment& segment) {
    return segment.is_content && tokenizer.Encode(segment.text) != tokenizer.EncodeWithSpecial(segment.text);
  });
  if (plain) return tokenizer.EncodeWithSpecial(TextOf(segments));
  std::vector<int32_t> ids;
  for (const ChatSegment& segment : segments) {
    const std::vector<int32_t> more =
        segment.is_content ? tokenizer.Encode(segment.text) : tokenizer.EncodeWithSpecial(segment.text);
    ids.insert(ids.end(), more.begin(), more.end());
  }
  return ids;
}

}  // namespace mica
