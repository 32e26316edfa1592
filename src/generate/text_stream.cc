#include "generate/text_stream.h"

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace mica {
namespace {

// Tokens before the new ones that are decoded with them: what a decoder makes of a token depends on those next
// to it alone.
constexpr size_t kContext = 8;

constexpr const char* kReplacement = "\xEF\xBF\xBD";

// Bytes of a character that `text` ends within; 0 where it ends behind one.
size_t CutCharacter(const std::string& text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) return 0;
    if (byte >= 0xC0) return back < (byte >= 0xF0 ? 4u : byte >= 0xE0 ? 3u : 2u) ? back : 0;
  }
  return 0;
}

std::string Mended(std::string text) {
  for (size_t at = FirstInvalidUtf8(text); at != std::string::npos; at = FirstInvalidUtf8(text))
    text.replace(at, 1, kReplacement);
  return text;
}

}  // namespace

TokenText::TokenText(const Tokenizer& tokenizer, std::span<const int32_t> before)
    : tokenizer_(&tokenizer),
      ids_(before.end() - static_cast<ptrdiff_t>(std::min(kContext, before.size())), before.end()),
      out_(ids_.size()) {}

std::string TokenText::New() const {
  const std::string before =
      tokenizer_->Decode({ids_.begin(), ids_.begin() + static_cast<ptrdiff_t>(out_)});
  const std::string all = tokenizer_->Decode(ids_);
  return all.size() > before.size() ? all.substr(before.size()) : "";
}

std::string TokenText::Add(int32_t id) {
  ids_.push_back(id);
  const std::string text = New();
  // SentencePiece has already put U+FFFD for bytes that are no character yet.
  if (text.empty() || CutCharacter(text) > 0 || text.ends_with(kReplacement)) {
    // Four bytes make any character: what is none after them will not become one.
    if (text.empty() || ids_.size() - out_ < 4) return "";
  }
  out_ = ids_.size();
  if (out_ > 2 * kContext) {
    const size_t dropped = out_ - kContext;
    ids_.erase(ids_.begin(), ids_.begin() + static_cast<ptrdiff_t>(dropped));
    out_ -= dropped;
  }
  return Mended(text);
}

std::string TokenText::Finish() {
  const std::string text = New();
  out_ = ids_.size();
  return Mended(text);
}

std::string StopStrings::Add(const std::string& piece) {
  if (found_) return "";
  held_ += piece;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  if (first != std::string::npos) {
    found_ = true;
    return held_.substr(0, first);
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; --n) {
      if (held_.compare(held_.size() - n, n, stop, 0, n) == 0) {
        keep = n;
        break;
      }
    }
  }
  std::string shown = held_.substr(0, held_.size() - keep);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopStrings::Finish() { return found_ ? "" : std::exchange(held_, ""); }

}  // namespace mica
