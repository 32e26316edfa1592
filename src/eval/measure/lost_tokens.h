// Tokens of a text on which a compressed model lost most, and the losses of single tokens that this is seen
// from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "eval/measure/perplexity.h"
#include "io/text/tokenizer.h"
#include "record/evaluation.h"

namespace mica {

// Of each set, the negative log likelihoods of its scored tokens, [windows, scored_per_window] nats.
using TokenLosses = Ordered<std::vector<float>>;

// A file of them, atomically written: safetensors, a tensor for each set.
void WriteTokenLosses(const std::filesystem::path& path, const TokenLosses& losses);
// Throws Error when the file is damaged or has other tensors.
TokenLosses ReadTokenLosses(const std::filesystem::path& path);
// Whether they are those of the evaluation: the same sets, as many tokens, the same means.
bool AreOf(const TokenLosses& losses, const EvaluationRecord& record);

struct LostToken {
  size_t window = 0, place = 0;  // the token is windows.ids[window * windows.window + place]
  float original = 0, compressed = 0;  // nats
};

// The `most` scored tokens whose loss is larger by the most than the original model's, the largest first; of
// equal ones those that come first in the text, and none that lost nothing. Both: [windows,
// scored_per_window]; values that are not finite count as nothing lost.
std::vector<LostToken> LostTokens(const Windows& windows, std::span<const float> original,
                                  std::span<const float> compressed, size_t most);

// Tokens of a set that results tell of, and tokens in front of each, within its window.
inline constexpr size_t kLostTokens = 10, kLostContext = 12;

// The same as results have it: kLostTokens with their text, figures rounded to thousandths of a nat.
std::vector<LostTokenRecord> LostTokenRecords(const Windows& windows, const Tokenizer& tokenizer,
                                              std::span<const float> original,
                                              std::span<const float> compressed);

}  // namespace mica
