// The characters by which byte-level tokenizers write bytes: printable ones of Latin-1 as themselves, the
// others as U+0100 and following, in their order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mica {

// The bytes that such characters stand for; nothing where another character is among them.
std::optional<std::string> BytesOfCharacters(std::string_view characters);
// The characters of bytes.
std::string CharactersOfBytes(std::string_view bytes);

}  // namespace mica
