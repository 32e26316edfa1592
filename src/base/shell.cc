#include "base/shell.h"

#include <fmt/format.h>

#include "base/output.h"

namespace mica {
namespace {

constexpr std::string_view kPlain =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
constexpr std::string_view kIndent = "    ";

// Whether a terminal may take the character at the front of `text` for a command: C0, DEL, and C1 (U+0080 to
// U+009F, two bytes in UTF-8).
size_t ControlBytes(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x20 || first == 0x7F) return 1;
  const auto second = static_cast<unsigned char>(text.size() > 1 ? text[1] : '\0');
  return first == 0xC2 && second >= 0x80 && second < 0xA0 ? 2 : 0;
}

bool HasControls(std::string_view text) {
  for (; !text.empty(); text.remove_prefix(1)) {
    if (ControlBytes(text) > 0) return true;
  }
  return false;
}

}  // namespace

std::string ShellWord(std::string_view word) {
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos) return std::string(word);
  if (!HasControls(word)) {
    std::string quoted = "'";
    for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return quoted + "'";
  }
  // No quote inside: a shell that does not know $'...' takes the rest for an ordinary quoted word.
  std::string quoted = "$'";
  while (!word.empty()) {
    const size_t controls = ControlBytes(word);
    const size_t taken = controls > 0 ? controls : 1;
    for (const char c : word.substr(0, taken)) {
      if (controls > 0 || c == '\'' || c == '\\') {
        quoted += fmt::format("\\{:03o}", static_cast<unsigned char>(c));
      } else {
        quoted += c;
      }
    }
    word.remove_prefix(taken);
  }
  return quoted + "'";
}

void ShellCommand::Operand(const std::string& path) {
  words.push_back(path.starts_with('-') ? "./" + path : path);
}

void ShellCommand::Option(const std::string& name, const std::string& value) {
  if (value.starts_with('-')) {
    words.push_back("--" + name + "=" + value);
  } else {
    words.insert(words.end(), {"--" + name, value});
  }
}

std::string ShellCommand::Line() const {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + ShellWord(word);
  return line;
}

std::string ShellCommand::Lines(size_t columns) const {
  std::string lines;
  size_t used = 0;
  for (size_t w = 0; w < words.size();) {
    std::string piece = ShellWord(words[w]);
    const bool option = words[w].starts_with('-') && words[w].find('=') == std::string::npos;
    const bool with_value = option && w + 1 < words.size() && !words[w + 1].starts_with('-');
    if (with_value) piece += " " + ShellWord(words[w + 1]);
    w += with_value ? 2 : 1;
    const size_t width = DisplayWidth(piece);
    constexpr size_t kBackslash = 2;  // with the blank before it
    const size_t behind = w < words.size() ? kBackslash : 0;
    if (used == 0) {
      lines += piece;
      used = width;
    } else if (used + 1 + width + behind <= columns) {
      lines += " " + piece;
      used += 1 + width;
    } else {
      lines += " \\\n" + std::string(kIndent) + piece;
      used = kIndent.size() + width;
    }
  }
  return lines;
}

}  // namespace mica
