#define PCRE2_CODE_UNIT_WIDTH 8
#include "io/text/pattern.h"

#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "io/text/utf8.h"

namespace mica {
namespace {

constexpr size_t kMaxBytes = 1 << 16;

// What Oniguruma's \s, \w and \d are inside of a class. PCRE2's \s has U+180E besides, its \w no marks; of
// the numbers that are no digits those of Latin-1 belong to words, but no others.
constexpr std::string_view kSpace = R"(\t\n\x{0B}\f\r\x{85}\p{Z})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})";
constexpr std::string_view kNoSpaceBesides = R"(\S\x{180E})";

constexpr std::string_view kCategories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N", "Nd", "Nl", "No", "P", "Pc", "Pd",
    "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So", "Z", "Zs", "Zl", "Zp", "C", "Cc", "Cf"};
constexpr std::string_view kScripts[] = {"Han",   "Hiragana", "Katakana", "Hangul",    "Bopomofo",
                                         "Latin", "Greek",    "Cyrillic", "Arabic",    "Hebrew",
                                         "Thai",  "Lao",      "Khmer",    "Devanagari"};

// Rewrites an expression so that PCRE2 takes it as Oniguruma does.
class Translator {
 public:
  Translator(std::string_view expression, const std::string& where) : in_(expression), where_(where) {}

  std::string Run() {
    CheckFolding();
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        Escape(false);
      } else if (c == '[') {
        Class();
      } else if (c == '(') {
        Group();
      } else if (c == '{') {
        Repeat();
      } else {
        Take(1);
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void Refuse(std::string_view what) const {
    Fail("{}: the expression \"{}\" uses {}, which is not supported", where_, Printable(in_),
         Printable(what));
  }
  bool Has(std::string_view next) const { return in_.substr(at_).starts_with(next); }
  void Take(size_t count) {
    out_ += in_.substr(at_, count);
    at_ += count;
  }
  void Write(std::string_view text, bool in_class, bool negated = false) {
    if (in_class)
      out_ += text;
    else
      out_.append(negated ? "[^" : "[").append(text).append("]");
  }

  // Without regard to case, Oniguruma takes a ligature or a sharp s for its letters.
  void CheckFolding() const {
    if (in_.find("(?i") == std::string_view::npos) return;
    std::string lower(in_);
    std::ranges::transform(lower, lower.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    for (const std::string_view letters : {"ss", "st", "ff", "fi", "fl"}) {
      if (lower.find(letters) != std::string::npos) Refuse(fmt::format("(?i with the letters {}", letters));
    }
  }

  void Escape(bool in_class) {
    if (at_ + 1 == in_.size()) Refuse("a backslash at its end");
    const char c = in_[at_ + 1];
    const std::string_view shown = in_.substr(at_, 2);
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c == 'p' || c == 'P') return Property();
    if (c == 'x' || c == 'u') return Code();
    if (!is_letter && (c < '0' || c > '9')) {
      if (static_cast<uint8_t>(c) >= 0x80) Refuse("an escaped character that is not ASCII");
      return Take(2);
    }
    if (c == 'n' || c == 'r' || c == 't' || c == 'f') return Take(2);
    if (!in_class && (c == 'A' || c == 'z')) return Take(2);
    at_ += 2;
    if (c == 's') return Write(kSpace, in_class);
    if (c == 'S') return in_class ? Write(kNoSpaceBesides, true) : Write(kSpace, false, true);
    if (c == 'd') return Write(R"(\p{Nd})", in_class);
    if (c == 'D') return Write(R"(\P{Nd})", in_class);
    if (c == 'w') return Write(kWord, in_class);
    if (c == 'W' && !in_class) return Write(kWord, false, true);
    Refuse(shown);
  }

  void Property() {
    const size_t end = in_.find('}', at_);
    if (end == std::string_view::npos || in_[at_ + 2] != '{') Refuse(in_.substr(at_, 3));
    const std::string_view whole = in_.substr(at_, end + 1 - at_);
    std::string_view name = whole.substr(3, whole.size() - 4);
    bool negated = in_[at_ + 1] == 'P';
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    const bool is_script = std::ranges::find(kScripts, name) != std::end(kScripts);
    if (!is_script && std::ranges::find(kCategories, name) == std::end(kCategories)) Refuse(whole);
    // PCRE2 by itself takes a script for all that is used with it.
    out_.append(negated ? "\\P{" : "\\p{").append(is_script ? "sc:" : "").append(name).append("}");
    at_ = end + 1;
  }

  // \xHH, \x{H...} and \uHHHH.
  void Code() {
    const bool braces = in_.substr(at_ + 2, 1) == "{";
    const size_t begin = at_ + (braces ? 3 : 2);
    const size_t count =
        braces ? std::min(in_.find('}', begin), in_.size()) - begin : (in_[at_ + 1] == 'x' ? 2 : 4);
    const std::string_view digits = in_.substr(std::min(begin, in_.size()), count);
    const bool valid = digits.size() == count && count > 0 && count <= 6 &&
                       digits.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos &&
                       (braces ? in_[at_ + 1] == 'x' : true);
    if (!valid) Refuse(in_.substr(at_, 3));
    if (!braces && count == 2 && digits[0] >= '8') Refuse(in_.substr(at_, 4));  // a byte, no character
    out_.append("\\x{").append(digits).append("}");
    at_ = begin + count + (braces ? 1 : 0);
  }

  void Class() {
    Take(1);
    if (Has("^")) Take(1);
    if (Has("]")) Refuse("a class that begins with ]");
    while (!Has("]")) {
      if (at_ == in_.size()) Refuse("a class without an end");
      if (Has("[")) Refuse("a class within a class");
      if (Has("&&")) Refuse("&&");
      if (in_[at_] == '\\')
        Escape(true);
      else
        Take(1);
    }
    Take(1);
  }

  void Group() {
    if (Has("(*")) Refuse("(*");
    if (!Has("(?")) return Take(1);
    for (const std::string_view form :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:", "(?i)"}) {
      if (Has(form)) return Take(form.size());
    }
    Refuse(in_.substr(at_, 4));
  }

  // {n}, {n,}, {n,m}, and behind the last two "?" for as few as possible; what Oniguruma reads otherwise than
  // PCRE2 ({,n}, {n}?, {n,m}+) is refused.
  void Repeat() {
    const size_t end = in_.find('}', at_);
    const std::string_view whole = in_.substr(at_, end == std::string_view::npos ? 1 : end + 1 - at_);
    const std::string_view inside = whole.substr(1, whole.size() < 2 ? 0 : whole.size() - 2);
    const size_t comma = inside.find(',');
    const std::string_view low = inside.substr(0, comma);
    const std::string_view high = comma == std::string_view::npos ? "" : inside.substr(comma + 1);
    const auto is_number = [](std::string_view digits) {
      return digits.find_first_not_of("0123456789") == std::string_view::npos && digits.size() < 5;
    };
    if (low.empty() || !is_number(low) || !is_number(high)) Refuse(whole);
    Take(whole.size());
    if (Has("+") || (Has("?") && comma == std::string_view::npos)) Refuse(std::string(whole) + in_[at_]);
  }

  std::string_view in_;
  const std::string& where_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

struct Pattern::Code {
  pcre2_code* code = nullptr;
  std::string literal;  // where there is no code
  std::string expression;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Pattern::Pattern() = default;
Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;

Pattern::Pattern(std::string_view expression, const std::string& where) {
  if (expression.size() > kMaxBytes)
    Fail("{}: the expression has {} bytes, expected at most {}", where, expression.size(), kMaxBytes);
  const std::string translated = Translator(expression, where).Run();
  auto code = std::make_unique<Code>();
  code->expression = expression;
  int error = 0;
  size_t offset = 0;
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                             &offset, context.get());
  if (code->code == nullptr) {
    PCRE2_UCHAR reason[256];
    pcre2_get_error_message(error, reason, sizeof(reason));
    Fail("{}: the expression \"{}\" is not a regular expression ({})", where, Printable(expression),
         reinterpret_cast<const char*>(reason));
  }
  // Where it fails (another processor), the interpreter finds the same.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  code_ = std::move(code);
}

Pattern Pattern::Literal(std::string text) {
  MICA_CHECK(!text.empty());
  auto code = std::make_unique<Code>();
  code->literal = std::move(text);
  Pattern pattern;
  pattern.code_ = std::move(code);
  return pattern;
}

struct Matcher::State {
  const Pattern::Code& code;
  pcre2_match_data* data = nullptr;
  std::string_view text;
  size_t from = 0;  // where to look next
  size_t last_end = std::string_view::npos;

  explicit State(const Pattern::Code& pattern) : code(pattern) {
    if (code.code != nullptr) data = pcre2_match_data_create_from_pattern(code.code, nullptr);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { pcre2_match_data_free(data); }
};

Matcher::Matcher(const Pattern& pattern) : state_(std::make_unique<State>(*pattern.code_)) {}
Matcher::~Matcher() = default;
Matcher::Matcher(Matcher&&) noexcept = default;

void Matcher::Start(std::string_view text) {
  state_->text = text;
  state_->from = 0;
  state_->last_end = std::string_view::npos;
}

std::optional<Matcher::Match> Matcher::Next() {
  State& s = *state_;
  if (s.data == nullptr) {
    const size_t at = s.text.find(s.code.literal, s.from);
    if (at == std::string_view::npos) return std::nullopt;
    s.from = at + s.code.literal.size();
    return Match{at, s.from};
  }
  while (s.from <= s.text.size()) {
    const auto match = [&](uint32_t options) {
      return pcre2_match(s.code.code, reinterpret_cast<PCRE2_SPTR>(s.text.data()), s.text.size(), s.from,
                         PCRE2_NO_UTF_CHECK | options, s.data, nullptr);
    };
    int result = match(0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) return std::nullopt;
    if (result < 0) {
      PCRE2_UCHAR reason[256];
      pcre2_get_error_message(result, reason, sizeof(reason));
      Fail("the text cannot be cut by the tokenizer's expression \"{}\" ({})", Printable(s.code.expression),
           reinterpret_cast<const char*>(reason));
    }
    const size_t* const range = pcre2_get_ovector_pointer(s.data);
    const Match found = {range[0], range[1]};
    // An empty match where the last one ended is none.
    if (found.begin >= found.end && s.last_end == found.end) {
      if (s.from == s.text.size()) return std::nullopt;
      s.from += CharacterAt(s.text, s.from).bytes;
      continue;
    }
    s.from = s.last_end = found.end;
    return found;
  }
  return std::nullopt;
}

}  // namespace mica
