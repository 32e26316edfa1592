// Text that came from outside: whether it is UTF-8, and how to show it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mica {

// Byte offset of the first byte that is not part of well-formed UTF-8 (no overlong forms, surrogates or code
// points above U+10FFFF), or std::string_view::npos when all of `text` is valid.
size_t FirstInvalidUtf8(std::string_view text);

inline constexpr size_t kShownBytes = 160;  // of a name in a message

// `text` in at most `limit` bytes of one line that does nothing to a terminal: the bytes of control
// characters (C0, DEL, C1), of what turns the direction or the line of writing, and bytes that are not UTF-8
// become \xNN; a longer text ends in "...". What it returns it leaves as it is.
std::string Printable(std::string_view text, size_t limit = kShownBytes);
// The same for the lines of `text`, each of any length: newlines stay.
std::string PrintableLines(std::string_view text);
// Valid JSON in which the characters that Printable changes are written as \uNNNN; those below U+0020 are so
// already.
std::string PrintableJson(std::string_view json);

// Whether a program or a person may call a thing so (a data set, an experiment): letters, digits, '_', '-'
// and '.', at least one. kLabelRule says it in messages.
bool IsLabel(std::string_view name);
inline constexpr const char* kLabelRule = "letters, digits, '_', '-' and '.'";

}  // namespace mica
