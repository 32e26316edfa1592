#include "eval/measure/token_classes.h"

#include <unordered_map>

#include "base/error.h"

namespace mica {

std::vector<TokenClass> ClassesByOccurrence(const Windows& windows, const std::vector<float>& token_nll) {
  const size_t scored = windows.scored_per_window();
  MICA_CHECK(token_nll.size() == windows.count() * scored);
  std::unordered_map<int32_t, uint64_t> occurrences;
  for (const int32_t id : windows.ids) ++occurrences[id];
  std::vector<TokenClass> classes = {{1, 1}, {2, 9}, {10, 99}, {100, 999}, {1000, 0}};
  for (size_t i = 0; i < token_nll.size(); ++i) {
    const size_t window = i / scored, place = windows.first_scored + i % scored;
    const uint64_t count = occurrences[windows.ids[window * windows.window + place]];
    size_t c = 0;
    while (classes[c].to != 0 && count > classes[c].to) ++c;
    ++classes[c].tokens;
    classes[c].nll += token_nll[i];
  }
  std::erase_if(classes, [](const TokenClass& c) { return c.tokens == 0; });
  for (TokenClass& c : classes) c.nll /= static_cast<double>(c.tokens);
  return classes;
}

}  // namespace mica
