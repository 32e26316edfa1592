// Which tokens a loss falls on: by how often a token occurs in the text that is measured.
#pragma once

#include <cstdint>
#include <vector>

#include "eval/measure/perplexity.h"

namespace mica {

struct TokenClass {
  uint64_t from = 1, to = 0;  // occurrences of its tokens in all windows; to 0: no end
  uint64_t tokens = 0;        // scored tokens
  double nll = 0;             // mean negative log likelihood of those, nats
};

// Classes 1, 2 to 9, 10 to 99, 100 to 999 and 1000 occurrences and more, those without a scored token left
// out. token_nll: [windows, scored_per_window].
std::vector<TokenClass> ClassesByOccurrence(const Windows& windows, const std::vector<float>& token_nll);

}  // namespace mica
