// Byte-pair encoding: a word becomes symbols, and of the neighbours that the vocabulary can merge those with
// the lowest rank are merged first, the leftmost of equals, until none is left.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace mica {

// The pieces of a vocabulary, by id and by text.
class PieceTable {
 public:
  // Throws Error naming `where` when the id is taken or not within [0, kMaxId), or the text is taken. Pieces
  // that are not `found` have a text and no more: Find does not know them.
  void Add(std::string text, int64_t id, const std::string& where, bool found = true);
  // -1 where there is none.
  int32_t Find(std::string_view text) const;
  bool Has(int32_t id) const { return id >= 0 && id < size() && has_[static_cast<size_t>(id)]; }
  const std::string& Text(int32_t id) const { return texts_[static_cast<size_t>(id)]; }
  int32_t size() const { return static_cast<int32_t>(texts_.size()); }  // 1 + the highest id
  size_t count() const { return count_; }

  static constexpr int64_t kMaxId = int64_t{1} << 22;

 private:
  void Grow();

  std::vector<std::string> texts_;
  std::vector<bool> has_;
  std::vector<int32_t> slots_;  // ids by hash, -1 in empty ones; a power of two, more than half empty
  size_t count_ = 0, found_ = 0;
};

// Which symbols merge to what.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = UINT32_MAX;  // UINT32_MAX: none
    int32_t merged = -1;
  };
  void Reserve(size_t count);
  // A later one takes the place of an earlier one.
  void Add(int32_t left, int32_t right, Merge merge);
  Merge Find(int32_t left, int32_t right) const;
  size_t size() const { return count_; }

 private:
  struct Slot {
    uint64_t pair = UINT64_MAX;
    Merge merge;
  };
  size_t Place(uint64_t pair) const;

  std::vector<Slot> slots_;  // as of PieceTable
  size_t count_ = 0;
};

struct BpeModel {
  PieceTable pieces;
  MergeTable merges;
  // What a word is made of: its bytes, or its characters.
  bool of_bytes = false;
  // A word that is a piece is one token whether or not merges lead to it.
  bool ignore_merges = false;
  std::array<int32_t, 256> byte_ids;  // of the symbols of bytes, -1 where there is none
  // A character that is no piece becomes its bytes' symbols, where there are all of them.
  bool byte_fallback = false;
  // Otherwise it becomes this, or nothing; with fuse_unknown once for several in a row.
  std::optional<int32_t> unknown;
  bool fuse_unknown = false;
  // Characters that are no pieces but that pieces are merged of, by ids from pieces.size() on.
  std::unordered_map<std::string, int32_t> loose;

  BpeModel() { byte_ids.fill(-1); }
  // To be called when everything is there.
  void Prepare();

  // Found by Prepare: a word of characters may be cut in front of U+2581 behind any character but these and
  // itself, since no piece has both.
  bool cuts_at_blanks = false;
  std::vector<std::string> glued;  // characters, in order
};

struct WordToken {
  int32_t id;
  size_t end;  // in the word
};

// Encodes one word after another, and remembers those that are frequent. Of one thread; the model must
// outlive it. Time is O(n log n) in the length of a word.
class WordEncoder {
 public:
  explicit WordEncoder(const BpeModel& model);

  // Appends the tokens of a word; their ends count from `begin`.
  void Append(std::string_view word, size_t begin, std::vector<WordToken>& tokens);

 private:
  struct Symbol {
    int32_t id;
    uint32_t rank;  // of the merge with the next one
    int32_t merged;
    size_t end;
    size_t before, next;  // of those that are left; npos at the ends
  };
  struct Known {
    uint64_t hash = 0;
    uint32_t key = 0, key_bytes = 0;  // in keys_; no bytes: an empty slot
    uint32_t first = 0, count = 0;    // in known_tokens_
  };

  void AppendPart(std::string_view part, size_t begin, std::vector<WordToken>& tokens);
  void Encode(std::string_view part);  // sets symbols_
  void AddCharacter(std::string_view character, size_t end);
  void MergeShort();
  void MergeLong();
  Known& SlotOf(std::string_view part, uint64_t hash);
  void Remember(std::string_view part, uint64_t hash);

  const BpeModel& model_;
  std::vector<Symbol> symbols_;  // those left after merging, at first
  bool unknown_waits_ = false;   // the last symbol is an unknown that more may join
  std::vector<Known> slots_;
  size_t known_ = 0;
  std::string keys_;
  std::vector<WordToken> known_tokens_;
};

}  // namespace mica
