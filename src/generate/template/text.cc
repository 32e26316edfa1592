#include "generate/template/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "io/text/utf8.h"

namespace mica::jinja {
namespace {

utf8proc_int32_t Code(char32_t code) { return static_cast<utf8proc_int32_t>(code); }

bool IsCased(char32_t code) {
  const utf8proc_category_t category = utf8proc_category(Code(code));
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

bool IsLetter(char32_t code) {
  const utf8proc_category_t category = utf8proc_category(Code(code));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

std::string UpperOf(char32_t code) {
  if (code == 0xDF) return "SS";
  return Utf8(static_cast<char32_t>(utf8proc_toupper(Code(code))));
}

std::string LowerOf(char32_t code) { return Utf8(static_cast<char32_t>(utf8proc_tolower(Code(code)))); }

std::string TitleOf(char32_t code) {
  if (code == 0xDF) return "Ss";
  return Utf8(static_cast<char32_t>(utf8proc_totitle(Code(code))));
}

char32_t CodeOf(std::string_view character) { return CharacterAt(character, 0).code; }

template <typename Holds>
bool All(std::string_view text, const Holds& holds) {
  for (size_t at = 0; at < text.size();) {
    const Character character = CharacterAt(text, at);
    if (!holds(character.code)) return false;
    at += character.bytes;
  }
  return !text.empty();
}

// All letters that have a case are of `category`, and there is one.
bool IsOfCase(std::string_view text, utf8proc_category_t category) {
  bool any = false;
  const bool all = All(text, [&](char32_t code) {
    if (!IsCased(code)) return true;
    any = true;
    return utf8proc_category(Code(code)) == category;
  });
  return all && any;
}

}  // namespace

Text::Text(std::string bytes, bool content) : bytes_(std::move(bytes)) {
  if (!bytes_.empty()) runs_.push_back({bytes_.size(), content});
}

void Text::Append(std::string_view bytes, bool content) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().content == content)
    runs_.back().end = bytes_.size();
  else
    runs_.push_back({bytes_.size(), content});
}

void Text::Append(const Text& other, size_t begin, size_t end) {
  auto run = std::upper_bound(other.runs_.begin(), other.runs_.end(), begin,
                              [](size_t at, const Run& one) { return at < one.end; });
  for (; begin < end; ++run) {
    const size_t stop = std::min(end, run->end);
    Append(std::string_view(other.bytes_).substr(begin, stop - begin), run->content);
    begin = stop;
  }
}

Text Text::Part(size_t begin, size_t end) const {
  Text part;
  part.Append(*this, begin, end);
  return part;
}

Text Text::Mapped(const std::function<std::string(std::string_view)>& change) const {
  Text mapped;
  size_t at = 0;
  for (const Run& run : runs_) {
    std::string changed;
    while (at < run.end) {
      const size_t bytes = CharacterAt(bytes_, at).bytes;
      changed += change(std::string_view(bytes_).substr(at, bytes));
      at += bytes;
    }
    mapped.Append(changed, run.content);
  }
  return mapped;
}

std::vector<size_t> Text::CharacterStarts() const {
  std::vector<size_t> starts;
  starts.reserve(bytes_.size() + 1);
  for (size_t at = 0; at < bytes_.size(); at += CharacterAt(bytes_, at).bytes) starts.push_back(at);
  starts.push_back(bytes_.size());
  return starts;
}

size_t Text::Characters() const {
  return static_cast<size_t>(std::count_if(bytes_.begin(), bytes_.end(), [](char byte) {
    return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
  }));
}

bool IsSpace(char32_t code) {
  return (code >= 9 && code <= 13) || (code >= 28 && code <= 32) || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

Extent Stripped(std::string_view text, bool left, bool right, const std::string* set) {
  const auto goes = [&](size_t at, size_t bytes) {
    if (set == nullptr) return IsSpace(CharacterAt(text, at).code);
    return set->find(text.substr(at, bytes)) != std::string::npos;
  };
  Extent extent{0, text.size()};
  while (left && extent.begin < extent.end) {
    const size_t bytes = CharacterAt(text, extent.begin).bytes;
    if (!goes(extent.begin, bytes)) break;
    extent.begin += bytes;
  }
  while (right && extent.begin < extent.end) {
    const size_t last = CharacterBefore(text, extent.end);
    if (!goes(last, extent.end - last)) break;
    extent.end = last;
  }
  return extent;
}

size_t FindPart(std::string_view text, std::string_view part, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (part.empty()) return from;
  if (from == text.size()) return std::string_view::npos;
  const void* found = ::memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return found == nullptr ? std::string_view::npos
                          : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

std::string Utf8(char32_t code) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t count = utf8proc_encode_char(Code(code), bytes);
  return {reinterpret_cast<const char*>(bytes), static_cast<size_t>(count)};
}

Text Upper(const Text& text) {
  return text.Mapped([](std::string_view character) { return UpperOf(CodeOf(character)); });
}

Text Lower(const Text& text) {
  return text.Mapped([](std::string_view character) { return LowerOf(CodeOf(character)); });
}

Text Capitalize(const Text& text) {
  bool first = true;
  return text.Mapped([&](std::string_view character) {
    const char32_t code = CodeOf(character);
    return std::exchange(first, false) ? TitleOf(code) : LowerOf(code);
  });
}

Text Title(const Text& text, TitleRule rule) {
  bool begins = true;
  return text.Mapped([&](std::string_view character) {
    const char32_t code = CodeOf(character);
    if (rule == TitleRule::kPython) {
      std::string changed = begins ? TitleOf(code) : LowerOf(code);
      begins = !IsCased(code);
      return changed;
    }
    // The filter writes a word's first letter by str.upper.
    std::string changed = begins ? UpperOf(code) : LowerOf(code);
    begins = IsSpace(code) || std::string_view("-({[<").find(character) != std::string_view::npos;
    return changed;
  });
}

bool IsUpper(std::string_view text) { return IsOfCase(text, UTF8PROC_CATEGORY_LU); }

bool IsLower(std::string_view text) { return IsOfCase(text, UTF8PROC_CATEGORY_LL); }

bool IsAlpha(std::string_view text) { return All(text, IsLetter); }

bool IsDigit(std::string_view text, bool or_alpha) {
  return All(text, [&](char32_t code) {
    return utf8proc_category(Code(code)) == UTF8PROC_CATEGORY_ND || (or_alpha && IsLetter(code));
  });
}

bool IsPrintable(char32_t code) {
  if (code == ' ') return true;
  const utf8proc_category_t category = utf8proc_category(Code(code));
  return !(category == UTF8PROC_CATEGORY_CN || category == UTF8PROC_CATEGORY_ZS ||
           category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP ||
           category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_CS || category == UTF8PROC_CATEGORY_CO);
}

}  // namespace mica::jinja
