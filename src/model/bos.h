// Where the windows that a model reads have the token that begins a text (BOS). Whether there is one is a
// fact of the tokenizer, where a model needs it one of how it was trained: the same rule when calibrating and
// when evaluating.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "io/text/tokenizer.h"

namespace mica {

enum class BosPlace {
  kText,    // once, in front of the whole text, which is then cut into windows
  kWindow,  // there, and in place of the first token of each window
  kNone
};
const char* BosPlaceName(BosPlace place);  // "text", "window", "none": the words of --bos
// Throws Error for another name.
BosPlace ParseBosPlace(const std::string& name);

// Where nothing else is asked for: `window` for model types that begin with "gemma", which read a window
// without BOS badly, where their tokenizer has one; else `text` where the tokenizer puts one in front of a
// text, as LLaMA's does, and `none` where it does not, as Qwen's.
BosPlace DefaultBos(const Tokenizer& tokenizer, std::string_view model_type);

// A place with the token that goes there.
struct Bos {
  BosPlace place = BosPlace::kNone;
  int32_t id = -1;  // -1 in place kNone

  // Tokens in front of the text's own: 1 or 0.
  size_t before_text() const { return place == BosPlace::kNone ? 0 : 1; }
  // Overwrites the first token of each window with it. ids: [windows, window].
  void BeginWindows(std::span<int32_t> ids, size_t window) const;
};

// The BOS of `asked`, or of DefaultBos. Throws Error where one is asked for that the tokenizer does not have.
Bos BosOf(std::optional<BosPlace> asked, const Tokenizer& tokenizer, std::string_view model_type);

}  // namespace mica
