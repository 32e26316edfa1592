#include "io/text/byte_characters.h"

#include <array>
#include <cstdint>

#include "io/text/utf8.h"

namespace mica {
namespace {

constexpr std::array<char32_t, 256> kCharacters = [] {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
    characters[byte] = printable ? byte : next++;
  }
  return characters;
}();

constexpr size_t kCodes = 0x100 + 68;

constexpr std::array<int16_t, kCodes> kBytes = [] {
  std::array<int16_t, kCodes> bytes{};
  bytes.fill(-1);
  for (size_t byte = 0; byte < 256; ++byte) bytes[kCharacters[byte]] = static_cast<int16_t>(byte);
  return bytes;
}();

}  // namespace

std::optional<std::string> BytesOfCharacters(std::string_view characters) {
  std::string bytes;
  for (size_t at = 0; at < characters.size();) {
    const Character character = CharacterAt(characters, at);
    at += character.bytes;
    if (character.code >= kCodes || kBytes[character.code] < 0) return std::nullopt;
    bytes += static_cast<char>(kBytes[character.code]);
  }
  return bytes;
}

std::string CharactersOfBytes(std::string_view bytes) {
  std::string characters;
  for (const char byte : bytes) {
    const char32_t code = kCharacters[static_cast<uint8_t>(byte)];
    if (code < 0x80) {
      characters += static_cast<char>(code);
    } else {
      characters += static_cast<char>(0xC0 | code >> 6);
      characters += static_cast<char>(0x80 | (code & 0x3F));
    }
  }
  return characters;
}

}  // namespace mica
