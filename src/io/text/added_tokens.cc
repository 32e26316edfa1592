#include "io/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "io/text/utf8.h"

namespace mica {

void AddedTokens::Add(AddedToken token, const std::string& where) {
  if (token.content.empty()) Fail("{}: added token {} is empty, expected its text", where, token.id);
  if (const AddedToken* other = Find(token.id)) {
    Fail("{}: added tokens \"{}\" and \"{}\" have the same id {}", where, Printable(other->content),
         Printable(token.content), token.id);
  }
  if (!ids_.emplace(token.content, token.id).second) {
    Fail("{}: added token \"{}\" has two ids, {} and {}", where, Printable(token.content),
         IdOf(token.content), token.id);
  }
  tokens_.emplace(token.id, std::move(token));
}

void AddedTokens::Prepare(const Normalizer& normalizer) {
  plain_ = {};
  normalized_ = {};
  for (const auto& [id, token] : tokens_) {
    Index& index = token.normalized ? normalized_ : plain_;
    std::string content = token.normalized ? normalizer.Apply(token.content) : token.content;
    if (content.empty()) continue;
    index.first[static_cast<uint8_t>(content.front())] = true;
    index.contents.emplace_back(std::move(content), id);
  }
  for (Index* index : {&plain_, &normalized_}) {
    // Of two that are normalised to the same the lower id is found.
    std::ranges::stable_sort(index->contents, {},
                             [](const auto& entry) -> const std::string& { return entry.first; });
  }
}

void AddedTokens::DropFrom(int32_t id) {
  for (Index* index : {&plain_, &normalized_})
    std::erase_if(index->contents, [&](const auto& entry) { return entry.second >= id; });
}

const AddedToken* AddedTokens::Find(int32_t id) const {
  const auto found = tokens_.find(id);
  return found == tokens_.end() ? nullptr : &found->second;
}

int32_t AddedTokens::IdOf(std::string_view content) const {
  const auto found = ids_.find(content);
  return found == ids_.end() ? -1 : found->second;
}

const std::pair<std::string, int32_t>* AddedTokens::Index::Longest(std::string_view text) const {
  const std::pair<std::string, int32_t>* longest = nullptr;
  // [begin, end) of those that agree with the text in the bytes before `at`. The shortest comes first.
  auto begin = contents.begin(), end = contents.end();
  for (size_t at = 0; begin != end; ++at) {
    if (begin->first.size() == at) {
      longest = &*begin;
      while (begin != end && begin->first.size() == at) ++begin;
    }
    if (at == text.size()) break;
    const auto byte = static_cast<uint8_t>(text[at]);
    begin = std::partition_point(begin, end, [&](const auto& entry) {
      return static_cast<uint8_t>(entry.first[at]) < byte;
    });
    end = std::partition_point(begin, end, [&](const auto& entry) {
      return static_cast<uint8_t>(entry.first[at]) == byte;
    });
  }
  return longest;
}

void AddedTokens::Split(std::string_view text, bool normalized, bool special,
                        const std::function<void(size_t, size_t)>& plain,
                        const std::function<void(int32_t, size_t)>& found) const {
  const Index& index = normalized ? normalized_ : plain_;
  size_t done = 0;
  for (size_t at = 0; !index.contents.empty() && at < text.size();) {
    if (!index.first[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    const std::pair<std::string, int32_t>* match = index.Longest(text.substr(at));
    if (match == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + match->first.size();
    at = end;
    const AddedToken& token = *Find(match->second);
    if (token.special && !special) continue;
    if (token.single_word && ((begin > 0 && IsWord(CharacterAt(text, CharacterBefore(text, begin)).code)) ||
                              (end < text.size() && IsWord(CharacterAt(text, end).code))))
      continue;
    while (token.lstrip && begin > done) {
      const size_t before = CharacterBefore(text, begin);
      if (!IsSpace(CharacterAt(text, before).code)) break;
      begin = before;
    }
    while (token.rstrip && end < text.size()) {
      const Character character = CharacterAt(text, end);
      if (!IsSpace(character.code)) break;
      end += character.bytes;
    }
    if (done < begin) plain(done, begin);
    found(token.id, end);
    done = std::max(done, end);
  }
  if (done < text.size()) plain(done, text.size());
}

}  // namespace mica
