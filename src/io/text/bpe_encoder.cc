#include "io/text/bpe_encoder.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/error.h"

namespace mica {

BpeEncoder::BpeEncoder(BpeParts parts) : parts_(std::move(parts)) {
  parts_.model.Prepare();
  parts_.added.Prepare(parts_.normalizer);
}

void BpeEncoder::Run(std::string_view text, bool special, std::vector<int32_t>& ids,
                     std::vector<double>* ends) const {
  const bool tracks = ends != nullptr;
  WordEncoder words(parts_.model);
  PreTokenizing pre_tokenizing(parts_.pre_tokenizer, tracks);
  std::vector<WordToken> tokens;  // of a word
  const std::function<void(const TextPart&)> add_word = [&](const TextPart& word) {
    tokens.clear();
    words.Append(word.text, 0, tokens);
    for (const WordToken& token : tokens) {
      ids.push_back(token.id);
      if (ends != nullptr) ends->push_back(word.Place(static_cast<double>(token.end)));
    }
  };
  const auto add_token = [&](const TextPart& part, int32_t id, size_t end) {
    ids.push_back(id);
    if (ends != nullptr) ends->push_back(part.Place(static_cast<double>(end)));
  };
  const TextPart whole = {text};
  const auto add_normalized = [&](const TextPart& part) {
    parts_.added.Split(
        part.text, true, special,
        [&](size_t begin, size_t end) { pre_tokenizing.Cut(part.Sub(begin, end - begin), add_word); },
        [&](int32_t id, size_t end) { add_token(part, id, end); });
  };
  parts_.added.Split(
      text, false, special,
      [&](size_t begin, size_t end) {
        parts_.normalizer.Apply(whole.Sub(begin, end - begin), tracks, add_normalized);
      },
      [&](int32_t id, size_t end) { add_token(whole, id, end); });
}

std::vector<int32_t> BpeEncoder::Encode(std::string_view text, bool special) const {
  std::vector<int32_t> ids;
  Run(text, special, ids, nullptr);
  return ids;
}

TextTokens BpeEncoder::EncodeWithBytes(std::string_view text, bool special) const {
  TextTokens tokens;
  std::vector<double>& ends = tokens.bytes;
  Run(text, special, tokens.ids, &ends);
  if (!ends.empty()) ends.back() = static_cast<double>(text.size());
  double done = 0;
  for (double& value : ends) {
    const double end = std::max(done, value);
    value = end - done;
    done = end;
  }
  return tokens;
}

std::string BpeEncoder::Decode(const std::vector<int32_t>& ids) const {
  std::vector<std::string> texts;
  for (const int32_t id : ids) {
    if (const AddedToken* added = parts_.added.Find(id)) {
      if (!added->special) texts.push_back(added->content);
    } else if (parts_.model.pieces.Has(id)) {
      texts.push_back(parts_.model.pieces.Text(id));
    } else {
      Fail("token id {} is outside the vocabulary of {} pieces", id, vocab_size_with_added());
    }
  }
  return parts_.decoder.Decode(std::move(texts));
}

int32_t BpeEncoder::vocab_size_with_added() const {
  const auto& tokens = parts_.added.tokens();
  return tokens.empty() ? vocab_size() : std::max(vocab_size(), tokens.rbegin()->first + 1);
}

}  // namespace mica
