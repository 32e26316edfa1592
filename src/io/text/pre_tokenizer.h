// How a tokenizer cuts a text into words, which are then merged each by itself.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/text/pattern.h"
#include "io/text/text_part.h"

namespace mica {

// What becomes of the matches of an expression at which a text is cut.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct SplitAtMatches {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // matches are what lies between those of the pattern
};
// Puts a blank in front of a part that does not begin with one.
struct BlankInFront {};
// Writes blanks as `replacement` and puts one in front, where none is.
struct ReplaceBlanks {
  std::string replacement;  // one character
  enum class InFront {
    kAlways,
    kFirst,
    kNever
  } in_front = InFront::kAlways;  // kFirst: of the whole text only
};

using PreTokenizerStep = std::variant<SplitAtMatches, BlankInFront, ReplaceBlanks>;

// Steps, each taking the parts of the one before it.
class PreTokenizer {
 public:
  void Add(PreTokenizerStep step) { steps_.push_back(std::move(step)); }
  bool empty() const { return steps_.empty(); }

 private:
  friend class PreTokenizing;
  std::vector<PreTokenizerStep> steps_;
};

// Cuts one part after another. Of one thread; the pre-tokenizer must outlive it.
class PreTokenizing {
 public:
  PreTokenizing(const PreTokenizer& pre_tokenizer, bool tracks);

  // Calls `word` for each part of the part, none empty, in order.
  void Cut(const TextPart& part, const std::function<void(const TextPart&)>& word);

 private:
  void CutFrom(size_t step, const TextPart& part, const std::function<void(const TextPart&)>& word);
  void Split(size_t step, const TextPart& part, const std::function<void(const TextPart&)>& word);

  const PreTokenizer& pre_tokenizer_;
  bool tracks_;
  std::vector<std::optional<Matcher>> matchers_;  // [steps]
};

}  // namespace mica
