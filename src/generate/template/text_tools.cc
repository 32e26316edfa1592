#include "generate/template/text_tools.h"

#include "base/error.h"
#include "io/text/utf8.h"

namespace mica::jinja {

void AppendWithin(const Context& context, const Text& part, Text& to) {
  context.budget->Read(part.size());
  if (to.footprint() + part.footprint() > context.budget->limits().held_bytes)
    Fail("the template makes a text of more than {} MiB", context.budget->limits().held_bytes >> 20);
  to.Append(part);
}

Text Replaced(const Context& context, const Text& text, const Text& old, const Text& with, int64_t most) {
  context.budget->Read(text.size());
  Text replaced;
  size_t begin = 0;
  int64_t count = 0;
  const auto more = [&] { return most < 0 || count++ < most; };
  if (old.empty()) {  // in front of each character, and at the end
    for (const size_t at : text.CharacterStarts()) {
      replaced.Append(text, begin, at);
      begin = at;
      if (!more()) break;
      AppendWithin(context, with, replaced);
    }
  } else {
    while (more()) {
      const size_t at = FindPart(text.bytes(), old.bytes(), begin);
      if (at == std::string_view::npos) break;
      replaced.Append(text, begin, at);
      AppendWithin(context, with, replaced);
      begin = at + old.size();
    }
  }
  replaced.Append(text, begin, text.size());
  return replaced;
}

std::vector<Line> Lines(std::string_view text) {
  std::vector<Line> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Character character = CharacterAt(text, at);
    const char32_t code = character.code;
    size_t next = at + character.bytes;
    if ((code >= 10 && code <= 13) || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
        code == 0x2029) {
      if (code == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back({begin, at, next});
      begin = next;
    }
    at = next;
  }
  if (begin < text.size()) lines.push_back({begin, text.size(), text.size()});
  return lines;
}

}  // namespace mica::jinja
