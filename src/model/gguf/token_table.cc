#include "model/gguf/token_table.h"

#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "base/text.h"

namespace mica {
std::string WithBlanks(std::string_view text) {
  std::string result;
  for (size_t at; (at = text.find(kBlankPiece)) != std::string_view::npos;
       text.remove_prefix(at + kBlankPiece.size()))
    result.append(text.substr(0, at)).append(1, ' ');
  return result.append(text);
}

TokenTable::TokenTable(size_t rows, std::string where)
    : where_(std::move(where)), texts_(rows), scores_(rows, kScoreOfAdded), types_(rows, kUnusedToken) {}

void TokenTable::Put(int64_t id, std::string text, int32_t type, float score) {
  if (id < 0 || static_cast<uint64_t>(id) >= texts_.size()) {
    Fail("{}: token \"{}\" has id {}, the model a vocabulary of {}; they do not belong together", where_,
         Printable(text), id, texts_.size());
  }
  const auto at = static_cast<size_t>(id);
  texts_[at] = std::move(text);
  types_[at] = type;
  scores_[at] = score;
}

void TokenTable::MoveTo(GgufVocabulary& vocabulary) {
  for (size_t id = 0; id < texts_.size(); ++id) {
    if (types_[id] == kUnusedToken && texts_[id].empty()) texts_[id] = fmt::format("[PAD{}]", id);
  }
  std::unordered_set<std::string_view> seen;
  for (const std::string& text : texts_) {
    if (!seen.insert(text).second)
      Fail("{}: token \"{}\" stands there twice, with the files beside it; a GGUF file has each once", where_,
           Printable(text));
  }
  vocabulary.tokens = std::move(texts_);
  vocabulary.token_type = std::move(types_);
  vocabulary.scores = std::move(scores_);
}

}  // namespace mica
