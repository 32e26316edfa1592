#include "io/text/text.h"

#include <fmt/format.h>

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
    const size_t length = SequenceLength(text.substr(at));
    const uint8_t first = static_cast<uint8_t>(text[at]);
    const bool plain = length > 0 && first >= 0x20 && first != 0x7F;
    const std::string next =
        plain ? std::string(text.substr(at, length)) : fmt::format("\\x{:02x}", static_cast<unsigned>(first));
    if (shown.size() + next.size() > limit) return shown + "...";
    shown += next;
    at += plain ? length : 1;
  }
  return shown;
}

std::string JsonReason(const std::exception& failure) {
  const std::string_view reason = failure.what();
  const size_t end_of_prefix = reason.find("] ");
  return Printable(end_of_prefix == std::string_view::npos ? reason : reason.substr(end_of_prefix + 2), 200);
}

}  // namespace mica
