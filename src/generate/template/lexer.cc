#include "generate/template/lexer.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "generate/template/text.h"

namespace mica::jinja {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameBegin(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsNamePart(char c) { return IsNameBegin(c) || IsDigit(c); }

// Longest first.
constexpr std::array<std::string_view, 26> kOperators = {"**", "//", "==", "!=", "<=", ">=", "+", "-", "*",
                                                         "/",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                         "<",  ">",  "=",  ".",  ":",  "|",  ",", ";"};

class Lexer {
 public:
  Lexer(std::string source, const std::string& where) : source_(std::move(source)), where_(where) {}

  std::vector<Token> Run() {
    while (at_ < source_.size()) {
      const size_t tag = NextTag();
      if (tag == std::string::npos) {
        Text(at_, source_.size());
        at_ = source_.size();
        break;
      }
      const char kind = source_[tag + 1];
      size_t inside = tag + 2;
      const char sign = inside < source_.size() ? source_[inside] : '\0';
      if (sign == '-' || sign == '+') ++inside;
      // A "+" in front of an expression is its sign, not the tag's: {{+1}} writes 1 either way.
      if (kind == '#') {
        Text(at_, StrippedEnd(at_, tag, sign, true));
        SkipComment(tag, inside);
      } else if (kind == '%' && WordAt(inside) == "raw") {
        Text(at_, StrippedEnd(at_, tag, sign, true));
        Raw(tag, inside);
      } else {
        Text(at_, StrippedEnd(at_, tag, sign, kind == '%'));
        Put(kind == '%' ? Token::Kind::kTagBegin : Token::Kind::kOutputBegin, {}, tag);
        at_ = inside;
        Tag(tag, kind);
      }
      line_starting_ = at_ > 0 && source_[at_ - 1] == '\n';
    }
    Put(Token::Kind::kEnd, {}, source_.size());
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void Refuse(size_t at, const std::string& what) {
    Fail("{}, line {}: {}", where_, LineOf(at), what);
  }

  // Positions are asked for in ascending order, but for those of errors.
  int LineOf(size_t at) {
    if (at < counted_to_) {
      counted_to_ = 0;
      line_ = 1;
    }
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(counted_to_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
    counted_to_ = at;
    return line_;
  }

  void Put(Token::Kind kind, std::string text, size_t at) {
    tokens_.push_back({kind, std::move(text), LineOf(at)});
  }

  void Text(size_t begin, size_t end) {
    if (begin < end) Put(Token::Kind::kText, source_.substr(begin, end - begin), begin);
  }

  size_t NextTag() const {
    for (size_t at = source_.find('{', at_); at != std::string::npos; at = source_.find('{', at + 1)) {
      if (at + 1 < source_.size() && std::string_view("{%#").find(source_[at + 1]) != std::string_view::npos)
        return at;
    }
    return std::string::npos;
  }

  size_t SkipSpace(size_t at) const {
    return at + Stripped(std::string_view(source_).substr(at), true, false).begin;
  }

  // The first word behind blanks; empty when there is none.
  std::string_view WordAt(size_t at) const {
    at = SkipSpace(at);
    size_t end = at;
    while (end < source_.size() && IsNamePart(source_[end])) ++end;
    return std::string_view(source_).substr(at, end - at);
  }

  // Where the text [begin, tag) ends after the whitespace control of the tag behind it.
  size_t StrippedEnd(size_t begin, size_t tag, char sign, bool lstrip) const {
    const std::string_view text = std::string_view(source_).substr(begin, tag - begin);
    if (sign == '-') return begin + Stripped(text, false, true).end;
    if (sign == '+' || !lstrip) return tag;
    const size_t newline = text.rfind('\n');
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    if (newline == std::string_view::npos && !line_starting_) return tag;
    const std::string_view blanks = text.substr(line);
    return Stripped(blanks, true, false).begin == blanks.size() ? begin + line : tag;
  }

  // Behind "%}" or "#}" at `at`: a newline goes, with '-' in front all blanks.
  size_t BehindEnd(size_t at, char sign, bool trim) const {
    at += 2;
    if (sign == '-') return SkipSpace(at);
    if (trim && sign != '+' && at < source_.size() && source_[at] == '\n') return at + 1;
    return at;
  }

  void SkipComment(size_t tag, size_t inside) {
    const size_t end = source_.find("#}", inside);
    if (end == std::string::npos) Refuse(tag, "the comment '{#' has no end; expected '#}'");
    const char sign = end > inside ? source_[end - 1] : '\0';
    at_ = BehindEnd(end, sign, true);
  }

  // The sign and the place of "%}" if the tag ends at `at` behind blanks, or npos.
  std::pair<char, size_t> TagEndAt(size_t at) const {
    at = SkipSpace(at);
    const char sign = at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
    if (sign != '\0') ++at;
    return {sign, source_.compare(at, 2, "%}") == 0 ? at : std::string::npos};
  }

  void Raw(size_t tag, size_t inside) {
    const auto [sign, end] = TagEndAt(SkipSpace(inside) + 3);
    if (end == std::string::npos) Refuse(tag, "tag 'raw' takes nothing; expected '%}'");
    at_ = BehindEnd(end, sign, false);
    line_starting_ = source_[at_ - 1] == '\n';
    for (size_t close = source_.find("{%", at_); close != std::string::npos;
         close = source_.find("{%", close + 1)) {
      size_t word = close + 2;
      const char left = word < source_.size() ? source_[word] : '\0';
      if (left == '-' || left == '+') ++word;
      if (WordAt(word) != "endraw") continue;
      const auto [right, close_end] = TagEndAt(SkipSpace(word) + 6);
      if (close_end == std::string::npos) continue;
      Text(at_, StrippedEnd(at_, close, left, true));
      at_ = BehindEnd(close_end, right, true);
      return;
    }
    Refuse(tag, "tag 'raw' has no end; expected '{% endraw %}'");
  }

  // The tokens up to the end of the tag, which is consumed.
  void Tag(size_t tag, char kind) {
    const std::string end = kind == '%' ? "%}" : "}}";
    std::string open;  // brackets; an end inside of them is none
    for (;;) {
      at_ = SkipSpace(at_);
      if (at_ >= source_.size())
        Refuse(tag, fmt::format("the tag '{}' has no end; expected '{}'", kind == '%' ? "{%" : "{{", end));
      const char c = source_[at_];
      if (open.empty()) {
        const bool signed_end =
            (c == '-' || (c == '+' && kind == '%')) && source_.compare(at_ + 1, 2, end) == 0;
        if (signed_end || source_.compare(at_, 2, end) == 0) {
          Put(kind == '%' ? Token::Kind::kTagEnd : Token::Kind::kOutputEnd, {}, at_);
          at_ = BehindEnd(at_ + (signed_end ? 1 : 0), signed_end ? c : '\0', kind == '%');
          return;
        }
      }
      if (IsDigit(c)) {
        Number();
      } else if (IsNameBegin(c)) {
        const size_t begin = at_;
        while (at_ < source_.size() && IsNamePart(source_[at_])) ++at_;
        Put(Token::Kind::kName, source_.substr(begin, at_ - begin), begin);
      } else if (c == '\'' || c == '"') {
        String();
      } else {
        Operator(open);
      }
    }
  }

  void Operator(std::string& open) {
    for (const std::string_view one : kOperators) {
      if (source_.compare(at_, one.size(), one) != 0) continue;
      const char c = one[0];
      if (c == '(') open += ')';
      if (c == '[') open += ']';
      if (c == '{') open += '}';
      if (c == ')' || c == ']' || c == '}') {
        if (open.empty() || open.back() != c) Refuse(at_, fmt::format("unexpected '{}'", c));
        open.pop_back();
      }
      Put(Token::Kind::kOperator, std::string(one), at_);
      at_ += one.size();
      return;
    }
    size_t end = at_ + 1;
    while (end < source_.size() && (static_cast<unsigned char>(source_[end]) & 0xC0) == 0x80) ++end;
    Refuse(at_, fmt::format("unexpected '{}'", Printable(std::string_view(source_).substr(at_, end - at_))));
  }

  // Digits with single underscores between them, from `at` on.
  size_t DigitsEnd(size_t at) const {
    while (at < source_.size() && (IsDigit(source_[at]) || (source_[at] == '_' && at + 1 < source_.size() &&
                                                            IsDigit(source_[at + 1]))))
      ++at;
    return at;
  }

  void Number() {
    const size_t begin = at_;
    bool fraction = false;
    const char base = begin + 1 < source_.size() ? source_[begin + 1] : '\0';
    if (source_[begin] == '0' && std::string_view("xXoObB").find(base) != std::string_view::npos) {
      at_ = begin + 2;
      while (at_ < source_.size() && IsNamePart(source_[at_])) ++at_;
    } else {
      at_ = DigitsEnd(begin);
      // "a.0.1" is two numbers behind points.
      const bool behind_point = begin > 0 && source_[begin - 1] == '.';
      if (!behind_point && at_ + 1 < source_.size() && source_[at_] == '.' && IsDigit(source_[at_ + 1])) {
        at_ = DigitsEnd(at_ + 1);
        fraction = true;
      }
      if (!behind_point && at_ < source_.size() && (source_[at_] == 'e' || source_[at_] == 'E')) {
        size_t digits = at_ + 1;
        if (digits < source_.size() && (source_[digits] == '+' || source_[digits] == '-')) ++digits;
        if (digits < source_.size() && IsDigit(source_[digits])) {
          at_ = DigitsEnd(digits);
          fraction = true;
        }
      }
    }
    std::string text = source_.substr(begin, at_ - begin);
    std::erase(text, '_');
    Put(fraction ? Token::Kind::kFloat : Token::Kind::kWhole, std::move(text), begin);
  }

  void String() {
    const size_t begin = at_;
    const char quote = source_[at_++];
    std::string value;
    for (;;) {
      if (at_ >= source_.size()) Refuse(begin, "a text has no closing quote");
      const char c = source_[at_++];
      if (c == quote) break;
      if (c == '\\')
        Escape(begin, value);
      else
        value += c;
    }
    Put(Token::Kind::kString, std::move(value), begin);
  }

  // Behind a backslash: Python's escapes; what is none stays as it is.
  void Escape(size_t string, std::string& value) {
    if (at_ >= source_.size()) Refuse(string, "a text has no closing quote");
    const char c = source_[at_++];
    constexpr std::string_view kFrom = "\\'\"abfnrtv";
    constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t at = kFrom.find(c); at != std::string_view::npos) {
      value += kTo[at];
    } else if (c == '\n') {  // the line goes on
    } else if (c >= '0' && c <= '7') {
      uint32_t code = static_cast<uint32_t>(c - '0');
      for (int i = 0; i < 2 && at_ < source_.size() && source_[at_] >= '0' && source_[at_] <= '7'; ++i)
        code = code * 8 + static_cast<uint32_t>(source_[at_++] - '0');
      value += Utf8(code);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const int digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      uint32_t code = 0;
      for (int i = 0; i < digits; ++i) {
        const char digit = at_ < source_.size() ? source_[at_] : '\0';
        const size_t number = std::string_view("0123456789abcdef0123456789ABCDEF").find(digit);
        if (digit == '\0' || number == std::string_view::npos)
          Refuse(at_, fmt::format("'\\{}' is followed by {} hexadecimal digits", c, digits));
        code = code * 16 + static_cast<uint32_t>(number % 16);
        ++at_;
      }
      if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        Refuse(at_, fmt::format("U+{:04X} is no character", code));
      value += Utf8(code);
    } else if (c == 'N') {
      Refuse(at_, "'\\N{...}' is not known; write the character itself or '\\uNNNN'");
    } else {
      value += '\\';
      --at_;  // may be the first byte of a longer character, or a quote that Python would keep, too
      value += source_[at_++];
    }
  }

  const std::string source_;
  const std::string& where_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  bool line_starting_ = true;  // the text from at_ on begins a line
  size_t counted_to_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<Token> Tokenize(std::string_view source, const std::string& where) {
  // As Jinja: line ends are '\n', and the last one of the file goes.
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      text += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      text += source[i];
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return Lexer(std::move(text), where).Run();
}

}  // namespace mica::jinja
