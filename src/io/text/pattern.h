// Regular expressions as tokenizers write them (Oniguruma's), run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace mica {

class Pattern {
 public:
  // Throws Error naming `where` for what is no regular expression, and for what of one could mean something
  // else to PCRE2 than to Oniguruma (\b, back references, &&, nested classes).
  Pattern(std::string_view expression, const std::string& where);
  // Finds `text` itself, which is not empty.
  static Pattern Literal(std::string text);
  ~Pattern();
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;

 private:
  friend class Matcher;
  Pattern();
  struct Code;
  std::unique_ptr<const Code> code_;
};

// Finds the matches of a pattern in one text after another. Of one thread; the pattern must outlive it.
class Matcher {
 public:
  explicit Matcher(const Pattern& pattern);
  ~Matcher();
  Matcher(Matcher&&) noexcept;

  struct Match {
    size_t begin, end;
  };
  // Starts over with another text, which must be valid UTF-8 and live until the last Next.
  void Start(std::string_view text);
  // The next match behind those before it, leftmost first; matches do not overlap. Throws Error when the
  // expression takes too long on this text.
  std::optional<Match> Next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mica
