// How a tokenizer changes a text before it looks for its pieces.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "io/text/pattern.h"
#include "io/text/text_part.h"

namespace mica {

// Unicode's normal forms.
enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
struct NormalizeForm {
  NormalForm form;
};
// Puts `text` in front of a part that is not empty.
struct PrependText {
  std::string text;
};
struct ReplaceMatches {
  Pattern pattern;
  std::string by;
};
// Removes white space at the ends.
struct StripSpace {
  bool left, right;
};
struct LowerCase {};

using NormalizerStep = std::variant<NormalizeForm, PrependText, ReplaceMatches, StripSpace, LowerCase>;

// Steps, one after another.
class Normalizer {
 public:
  void Add(NormalizerStep step) { steps_.push_back(std::move(step)); }

  // Calls `then` with the changed part, or with `part` itself where nothing changes; it lives until `then`
  // returns. `tracks` as in EditedText.
  void Apply(const TextPart& part, bool tracks, const std::function<void(const TextPart&)>& then) const;
  // The changed text.
  std::string Apply(std::string_view text) const;

 private:
  void ApplyFrom(size_t step, const TextPart& part, bool tracks,
                 const std::function<void(const TextPart&)>& then) const;

  std::vector<NormalizerStep> steps_;
};

// Unicode's White_Space.
bool IsSpace(char32_t code);
// What belongs to a word: letters, marks, digits, connectors.
bool IsWord(char32_t code);

}  // namespace mica
