// Text in which each byte says where it comes from: from the template, or from what it was given to write
// (a message's content). Every operation keeps that mark, so that at the end the special tokens of the
// template can be told from the same characters in somebody's message.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace mica::jinja {

class Text {
 public:
  // Bytes from the end of the run before it to `end`, all of one origin.
  struct Run {
    size_t end;
    bool content;
  };

  Text() = default;
  explicit Text(std::string bytes, bool content = false);

  const std::string& bytes() const { return bytes_; }
  const std::vector<Run>& runs() const { return runs_; }  // ascending, neighbours differ
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  // What it takes in memory.
  size_t footprint() const { return bytes_.size() + runs_.size() * sizeof(Run) + sizeof(Text); }

  void Append(std::string_view bytes, bool content = false);
  void Append(const Text& other) { Append(other, 0, other.size()); }
  // The bytes [begin, end) of `other`, which is not this text.
  void Append(const Text& other, size_t begin, size_t end);
  Text Part(size_t begin, size_t end) const;

  // `change` applied to each character (valid UTF-8), in order; what it gives keeps the character's mark.
  Text Mapped(const std::function<std::string(std::string_view character)>& change) const;
  // Where each character begins, and the text's end.
  std::vector<size_t> CharacterStarts() const;
  size_t Characters() const;

 private:
  std::string bytes_;
  std::vector<Run> runs_;
};

// What Python's str.isspace says of a character.
bool IsSpace(char32_t code);
// The part of [begin, end) of valid UTF-8 without the blanks (or the characters of `set`) at its ends.
struct Extent {
  size_t begin, end;
};
Extent Stripped(std::string_view text, bool left, bool right, const std::string* set = nullptr);
// Where `part` begins in `text` from `from` on, or npos; in linear time.
size_t FindPart(std::string_view text, std::string_view part, size_t from = 0);
std::string Utf8(char32_t code);

// Python's case mappings, of whole texts; special casings beyond one character are those of sharp s only.
Text Upper(const Text& text);
Text Lower(const Text& text);
Text Capitalize(const Text& text);
enum class TitleRule {
  kPython,  // str.title: a word begins behind what is no letter
  kJinja    // the filter: behind blanks, '-' and opening brackets
};
Text Title(const Text& text, TitleRule rule);
// str.isupper and str.islower; isalpha and isdigit.
bool IsUpper(std::string_view text);
bool IsLower(std::string_view text);
bool IsAlpha(std::string_view text);
bool IsDigit(std::string_view text, bool or_alpha = false);
bool IsPrintable(char32_t code);

}  // namespace mica::jinja
