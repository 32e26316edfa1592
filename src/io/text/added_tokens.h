// Tokens that a text is searched for before anything else is done with it.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "io/text/normalizer.h"

namespace mica {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;      // text of an evaluation does not mean it
  bool single_word = false;  // only where no word continues on either side
  bool lstrip = false;       // takes white space in front of it along
  bool rstrip = false;       // ... behind it
  bool normalized = false;   // is searched for, normalised, in the normalised text
};

class AddedTokens {
 public:
  // Throws Error naming `where` when the content is empty, or the content or the id is there already.
  void Add(AddedToken token, const std::string& where);
  // Makes ready to search; after the last Add.
  void Prepare(const Normalizer& normalizer);
  // Tokens from this id on are no longer searched for.
  void DropFrom(int32_t id);

  const std::map<int32_t, AddedToken>& tokens() const { return tokens_; }  // by id
  const AddedToken* Find(int32_t id) const;
  // Id of the token of this content, or -1.
  int32_t IdOf(std::string_view content) const;

  // Cuts `text` at those tokens that are `normalized`, or at those that are not: calls `plain` for what lies
  // between them, not empty, and `found` with a token's id and where it ends. The longest of the tokens at
  // the leftmost place is taken. Special ones are passed over, as ordinary text, unless `special`.
  void Split(std::string_view text, bool normalized, bool special,
             const std::function<void(size_t begin, size_t end)>& plain,
             const std::function<void(int32_t id, size_t end)>& found) const;

 private:
  // Contents in order, by which a text is searched byte for byte.
  struct Index {
    std::vector<std::pair<std::string, int32_t>> contents;
    std::array<bool, 256> first{};  // bytes that one begins with

    // The longest that `text` begins with, or nullptr.
    const std::pair<std::string, int32_t>* Longest(std::string_view text) const;
  };

  std::map<int32_t, AddedToken> tokens_;
  std::map<std::string, int32_t, std::less<>> ids_;
  Index plain_, normalized_;
};

}  // namespace mica
