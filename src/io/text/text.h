// Text that came from outside: whether it is UTF-8, and how to show it in an error message.
#pragma once

#include <cstddef>
#include <exception>
#include <string>
#include <string_view>

namespace mica {

// Byte offset of the first byte that is not part of well-formed UTF-8 (no overlong forms, surrogates or code
// points above U+10FFFF), or std::string_view::npos when all of `text` is valid.
size_t FirstInvalidUtf8(std::string_view text);

// `text` in at most `limit` bytes of one printable line: control characters and bytes that are not UTF-8
// become \xNN, a longer text ends in "...". For names taken from files.
std::string Printable(std::string_view text, size_t limit = 160);

// The reason in an nlohmann-json exception without the library's own prefix, printable.
std::string JsonReason(const std::exception& failure);

}  // namespace mica
