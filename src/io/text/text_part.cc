#include "io/text/text_part.h"

#include <algorithm>

#include "base/error.h"

namespace mica {

EditedText::EditedText(const TextPart& source, bool tracks) : source_(source), tracks_(tracks) {
  text_.reserve(source.text.size());
  if (tracks_) points_.push_back({0, 0});
}

void EditedText::Keep(size_t count) {
  if (count == 0) return;
  text_.append(source_.text.substr(read_, count));
  read_ += count;
  if (!tracks_) return;
  if (!kept_) points_.push_back({});
  points_.back() = {text_.size(), read_};
  kept_ = true;
}

void EditedText::Replace(size_t count, std::string_view by) {
  text_.append(by);
  read_ += count;
  kept_ = false;
  if (tracks_) points_.push_back({text_.size(), read_});
}

double EditedText::Place(double offset) const {
  MICA_CHECK(tracks_);
  const auto before = [&](const Point& point) { return static_cast<double>(point.text) < offset; };
  if (before(points_[near_])) {
    constexpr size_t kSteps = 8;
    for (size_t step = 0; step < kSteps && near_ + 1 < points_.size() && before(points_[near_]); ++step)
      ++near_;
  }
  if (before(points_[near_]) || (near_ > 0 && !before(points_[near_ - 1]))) {
    near_ =
        static_cast<size_t>(std::partition_point(points_.begin(), points_.end(), before) - points_.begin());
    near_ = std::min(near_, points_.size() - 1);
  }
  const Point& end = points_[near_];
  if (near_ == 0 || offset >= static_cast<double>(end.text))
    return source_.Place(static_cast<double>(end.source));
  const Point& begin = points_[near_ - 1];
  // Whole where both grow alike.
  return source_.Place(static_cast<double>(begin.source) +
                       (offset - static_cast<double>(begin.text)) *
                           static_cast<double>(end.source - begin.source) /
                           static_cast<double>(end.text - begin.text));
}

}  // namespace mica
