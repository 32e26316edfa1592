#include "base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace mica {
namespace {

// Bytes of the well-formed UTF-8 sequence at the start of `text` (not empty), or 0 (Unicode 15, table 3-7).
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return continues(1) ? 2 : 0;
  if (lead < 0xF0) {
    const uint8_t low = lead == 0xE0 ? 0xA0 : 0x80;
    const uint8_t high = lead == 0xED ? 0x9F : 0xBF;
    return byte(1) >= low && byte(1) <= high && continues(2) ? 3 : 0;
  }
  if (lead > 0xF4) return 0;
  const uint8_t low = lead == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = lead == 0xF4 ? 0x8F : 0xBF;
  return byte(1) >= low && byte(1) <= high && continues(2) && continues(3) ? 4 : 0;
}

// The code point of a well-formed sequence.
uint32_t CodePoint(std::string_view sequence) {
  const auto lead = static_cast<uint8_t>(sequence[0]);
  if (sequence.size() == 1) return lead;
  uint32_t code = lead & (0xFFu >> (sequence.size() + 1));
  for (const char c : sequence.substr(1)) code = code << 6 | (static_cast<uint8_t>(c) & 0x3Fu);
  return code;
}

// Whether a character acts on a terminal instead of being shown there: control characters, separators of
// lines, marks, embeddings, overrides and isolates of direction.
bool Acts(uint32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x061C || code == 0x200E || code == 0x200F ||
         (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069) ||
         (code >= 0xFFF9 && code <= 0xFFFB);
}

}  // namespace

size_t FirstInvalidUtf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t eight;
    if (text.size() - at >= sizeof(eight)) {  // most text is ASCII: skip eight such bytes at once
      std::memcpy(&eight, text.data() + at, sizeof(eight));
      if ((eight & 0x8080808080808080u) == 0) {
        at += sizeof(eight);
        continue;
      }
    }
    const size_t length = SequenceLength(text.substr(at));
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

std::string Printable(std::string_view text, size_t limit) {
  std::string shown;
  for (size_t at = 0; at < text.size();) {
    const size_t length = std::max<size_t>(1, SequenceLength(text.substr(at)));
    const std::string_view sequence = text.substr(at, length);
    std::string next(sequence);
    if (SequenceLength(sequence) == 0 || Acts(CodePoint(sequence))) {
      next.clear();
      for (const char c : sequence)
        next += fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<uint8_t>(c)));
    }
    if (shown.size() + next.size() > limit) return shown + "...";
    shown += next;
    at += length;
  }
  return shown;
}

std::string PrintableLines(std::string_view text) {
  std::string shown;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    shown += Printable(text.substr(0, end), std::string_view::npos);
    if (end == text.size()) break;
    shown += '\n';
    text.remove_prefix(end + 1);
  }
  return shown;
}

std::string PrintableJson(std::string_view json) {
  std::string shown;
  for (size_t at = 0; at < json.size();) {
    const size_t length = std::max<size_t>(1, SequenceLength(json.substr(at)));
    const std::string_view sequence = json.substr(at, length);
    const uint32_t code = CodePoint(sequence);
    // Below U+0020 only the layout's newlines are left, outside strings; all that act lie below U+10000.
    if (code >= 0x20 && Acts(code)) {
      shown += fmt::format("\\u{:04x}", code);
    } else {
      shown += sequence;
    }
    at += length;
  }
  return shown;
}

bool IsLabel(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  });
}

}  // namespace mica
