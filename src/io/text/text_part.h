// Parts of a text that a tokenizer changes before it cuts it, and where in the text as it was given they come
// from.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mica {

class EditedText;

// A stretch of the text as it was given, or of an edited one.
struct TextPart {
  std::string_view text;
  const EditedText* edited = nullptr;  // which it is a stretch of; nullptr: of the text as it was given
  size_t at = 0;                       // where it begins there

  TextPart Sub(size_t begin, size_t count = std::string_view::npos) const {
    return {text.substr(begin, count), edited, at + begin};
  }
  // Where in the text as it was given an offset of this part comes from, in bytes; inside of what was
  // replaced proportionally.
  double Place(double offset) const;
};

// A changed copy of a part, written from its beginning to its end.
class EditedText {
 public:
  // `source` must outlive what is made of it. Places are known only where they are kept track of.
  EditedText(const TextPart& source, bool tracks);
  EditedText(const EditedText&) = delete;
  EditedText& operator=(const EditedText&) = delete;

  // Copies the next `count` bytes of the source.
  void Keep(size_t count);
  void KeepRest() { Keep(source_.text.size() - read_); }
  // Writes `by` in place of the next `count` bytes of the source.
  void Replace(size_t count, std::string_view by);

  TextPart part() const { return {text_, this, 0}; }
  size_t read() const { return read_; }  // bytes of the source that are written
  // Whether it begins where the text as it was given does.
  bool begins_text() const {
    return source_.at == 0 && (source_.edited == nullptr || source_.edited->begins_text());
  }
  // As TextPart::Place. What was removed belongs to what follows it.
  double Place(double offset) const;

 private:
  // Where a stretch ends, in this text and in the source. Between two of them both grow evenly.
  struct Point {
    size_t text, source;
  };

  TextPart source_;
  bool tracks_;
  bool kept_ = false;  // the last stretch is a copy
  size_t read_ = 0;
  std::string text_;
  std::vector<Point> points_;
  mutable size_t near_ = 0;  // point that was asked for last: questions come in rising order
};

inline double TextPart::Place(double offset) const {
  const double place = static_cast<double>(at) + offset;
  return edited == nullptr ? place : edited->Place(place);
}

}  // namespace mica
