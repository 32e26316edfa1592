#include "io/text/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <tuple>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "io/text/utf8.h"

namespace mica {
namespace {

constexpr std::string_view kBlank = "\u2581";
constexpr size_t kNone = static_cast<size_t>(-1);
constexpr uint32_t kNoRank = UINT32_MAX;
constexpr size_t kShortWord = 40;  // symbols up to which looking at all of them beats a heap
// Words that are remembered: as many as fit into the processor's cache, each short.
constexpr size_t kFirstSlots = 256, kMaxSlots = size_t{1} << 16;
constexpr size_t kMaxKnownBytes = 64;

uint64_t HashOf(std::string_view text) { return std::hash<std::string_view>()(text); }

uint64_t PairOf(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

std::string_view LastCharacter(std::string_view text) {
  return text.substr(CharacterBefore(text, text.size()));
}

}  // namespace

void PieceTable::Add(std::string text, int64_t id, const std::string& where, bool found) {
  if (id < 0 || id >= kMaxId) {
    Fail("{}: token \"{}\" has id {}, expected 0 to {}", where, Printable(text), id, kMaxId - 1);
  }
  const auto place = static_cast<size_t>(id);
  if (place >= texts_.size()) {
    texts_.resize(place + 1);
    has_.resize(place + 1);
  }
  if (has_[place]) {
    Fail("{}: tokens \"{}\" and \"{}\" have the same id {}", where, Printable(texts_[place]), Printable(text),
         id);
  }
  if (found) {
    if (const int32_t other = Find(text); other >= 0)
      Fail("{}: token \"{}\" has two ids, {} and {}", where, Printable(text), other, id);
  }
  texts_[place] = std::move(text);
  has_[place] = true;
  ++count_;
  if (!found) return;
  if (2 * (found_ + 1) > slots_.size()) Grow();
  size_t slot = HashOf(texts_[place]) & (slots_.size() - 1);
  while (slots_[slot] >= 0) slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = static_cast<int32_t>(id);
  ++found_;
}

void PieceTable::Grow() {
  std::vector<int32_t> old =
      std::exchange(slots_, std::vector<int32_t>(std::max<size_t>(64, 2 * slots_.size()), -1));
  for (const int32_t id : old) {
    if (id < 0) continue;
    size_t slot = HashOf(Text(id)) & (slots_.size() - 1);
    while (slots_[slot] >= 0) slot = (slot + 1) & (slots_.size() - 1);
    slots_[slot] = id;
  }
}

int32_t PieceTable::Find(std::string_view text) const {
  if (slots_.empty()) return -1;
  for (size_t slot = HashOf(text) & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot] < 0 || Text(slots_[slot]) == text) return slots_[slot];
  }
}

void MergeTable::Reserve(size_t count) {
  size_t slots = 64;
  while (slots < 2 * count) slots *= 2;
  if (slots <= slots_.size()) return;
  const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots));
  for (const Slot& slot : old) {
    if (slot.pair != UINT64_MAX) slots_[Place(slot.pair)] = slot;
  }
}

size_t MergeTable::Place(uint64_t pair) const {
  uint64_t hash = pair * 0x9E3779B97F4A7C15u;
  hash ^= hash >> 32;
  size_t slot = hash & (slots_.size() - 1);
  while (slots_[slot].pair != UINT64_MAX && slots_[slot].pair != pair)
    slot = (slot + 1) & (slots_.size() - 1);
  return slot;
}

void MergeTable::Add(int32_t left, int32_t right, Merge merge) {
  Reserve(count_ + 1);
  Slot& slot = slots_[Place(PairOf(left, right))];
  if (slot.pair == UINT64_MAX) ++count_;
  slot = {PairOf(left, right), merge};
}

MergeTable::Merge MergeTable::Find(int32_t left, int32_t right) const {
  if (slots_.empty()) return {};
  return slots_[Place(PairOf(left, right))].merge;
}

void BpeModel::Prepare() {
  cuts_at_blanks = false;
  glued.clear();
  if (of_bytes || ignore_merges || pieces.Find(kBlank) < 0) return;
  // Only pieces that merges make matter, but those are nearly all.
  for (int32_t id = 0; id < pieces.size(); ++id) {
    if (!pieces.Has(id)) continue;
    const std::string_view text = pieces.Text(id);
    for (size_t at = 0; (at = text.find(kBlank, at)) != std::string_view::npos; at += kBlank.size()) {
      if (at == 0) continue;
      const std::string_view before = LastCharacter(text.substr(0, at));
      if (before != kBlank) glued.emplace_back(before);
    }
  }
  std::ranges::sort(glued);
  glued.erase(std::unique(glued.begin(), glued.end()), glued.end());
  cuts_at_blanks = true;
}

WordEncoder::WordEncoder(const BpeModel& model) : model_(model), slots_(kFirstSlots) {}

void WordEncoder::Append(std::string_view word, size_t begin, std::vector<WordToken>& tokens) {
  size_t done = 0;
  if (model_.cuts_at_blanks) {
    for (size_t at = word.find(kBlank, 1); at != std::string_view::npos;
         at = word.find(kBlank, at + kBlank.size())) {
      const std::string_view before = LastCharacter(word.substr(0, at));
      if (before == kBlank || std::ranges::binary_search(model_.glued, before)) continue;
      AppendPart(word.substr(done, at - done), begin + done, tokens);
      done = at;
    }
  }
  AppendPart(word.substr(done), begin + done, tokens);
}

void WordEncoder::AppendPart(std::string_view part, size_t begin, std::vector<WordToken>& tokens) {
  if (part.empty()) return;
  if (model_.ignore_merges) {
    if (const int32_t id = model_.pieces.Find(part); id >= 0)
      return tokens.push_back({id, begin + part.size()});
  }
  const bool may_be_known = part.size() <= kMaxKnownBytes;
  const uint64_t hash = may_be_known ? HashOf(part) : 0;
  if (may_be_known) {
    if (const Known& known = SlotOf(part, hash); known.key_bytes > 0) {
      for (size_t i = 0; i < known.count; ++i) {
        const WordToken& token = known_tokens_[known.first + i];
        tokens.push_back({token.id, begin + token.end});
      }
      return;
    }
  }
  Encode(part);
  for (const Symbol& symbol : symbols_) tokens.push_back({symbol.id, begin + symbol.end});
  if (may_be_known) Remember(part, hash);
}

WordEncoder::Known& WordEncoder::SlotOf(std::string_view part, uint64_t hash) {
  for (size_t slot = hash & (slots_.size() - 1);; slot = (slot + 1) & (slots_.size() - 1)) {
    Known& known = slots_[slot];
    if (known.key_bytes == 0) return known;
    if (known.hash == hash && std::string_view(keys_).substr(known.key, known.key_bytes) == part)
      return known;
  }
}

void WordEncoder::Remember(std::string_view part, uint64_t hash) {
  if (2 * (known_ + 1) > slots_.size()) {
    const std::vector<Known> old =
        std::exchange(slots_, std::vector<Known>(std::min(kMaxSlots, 2 * slots_.size())));
    if (old.size() == kMaxSlots) {  // full: the frequent ones will soon be back
      keys_.clear();
      known_tokens_.clear();
      known_ = 0;
    } else {
      for (const Known& known : old) {
        if (known.key_bytes > 0)
          SlotOf(std::string_view(keys_).substr(known.key, known.key_bytes), known.hash) = known;
      }
    }
  }
  SlotOf(part, hash) = {.hash = hash,
                        .key = static_cast<uint32_t>(keys_.size()),
                        .key_bytes = static_cast<uint32_t>(part.size()),
                        .first = static_cast<uint32_t>(known_tokens_.size()),
                        .count = static_cast<uint32_t>(symbols_.size())};
  keys_ += part;
  for (const Symbol& symbol : symbols_) known_tokens_.push_back({symbol.id, symbol.end});
  ++known_;
}

void WordEncoder::AddCharacter(std::string_view character, size_t end) {
  const auto add = [&](int32_t id, size_t at) { symbols_.push_back({id, kNoRank, -1, at, kNone, kNone}); };
  if (int32_t id = model_.pieces.Find(character); id >= 0) {
    unknown_waits_ = false;
    return add(id, end);
  }
  if (!model_.loose.empty()) {
    if (const auto found = model_.loose.find(std::string(character)); found != model_.loose.end()) {
      unknown_waits_ = false;
      return add(found->second, end);
    }
  }
  if (model_.byte_fallback) {
    const auto has_id = [&](char byte) { return model_.byte_ids[static_cast<uint8_t>(byte)] >= 0; };
    if (std::ranges::all_of(character, has_id)) {
      unknown_waits_ = false;
      size_t at = end - character.size();
      for (const char byte : character) add(model_.byte_ids[static_cast<uint8_t>(byte)], ++at);
      return;
    }
  }
  if (!model_.unknown) return;
  if (unknown_waits_ && model_.fuse_unknown) {
    symbols_.back().end = end;
  } else {
    add(*model_.unknown, end);
    unknown_waits_ = true;
  }
}

void WordEncoder::Encode(std::string_view part) {
  symbols_.clear();
  unknown_waits_ = false;
  if (model_.of_bytes) {
    for (size_t at = 0; at < part.size(); ++at) {
      int32_t id = model_.byte_ids[static_cast<uint8_t>(part[at])];
      if (id < 0 && model_.unknown) id = *model_.unknown;
      if (id >= 0) symbols_.push_back({id, kNoRank, -1, at + 1, kNone, kNone});
    }
  } else {
    for (size_t at = 0; at < part.size();) {
      const size_t bytes = CharacterAt(part, at).bytes;
      AddCharacter(part.substr(at, bytes), at + bytes);
      at += bytes;
    }
  }
  symbols_.size() <= kShortWord ? MergeShort() : MergeLong();
  if (model_.loose.empty()) return;
  // Characters that were not merged after all.
  const std::vector<Symbol> merged = std::exchange(symbols_, {});
  size_t begin = 0;
  for (const Symbol& symbol : merged) {
    if (symbol.id < model_.pieces.size()) {
      symbols_.push_back(symbol);
    } else {
      for (size_t at = begin; at < symbol.end; ++at) {
        int32_t id = model_.byte_ids[static_cast<uint8_t>(part[at])];
        if (id < 0) id = model_.unknown.value_or(-1);
        if (id >= 0) symbols_.push_back({id, kNoRank, -1, at + 1, kNone, kNone});
      }
    }
    begin = symbol.end;
  }
}

void WordEncoder::MergeShort() {
  size_t count = symbols_.size();
  const auto set_merge = [&](size_t at) {
    const MergeTable::Merge merge =
        at + 1 < count ? model_.merges.Find(symbols_[at].id, symbols_[at + 1].id) : MergeTable::Merge();
    symbols_[at].rank = merge.rank;
    symbols_[at].merged = merge.merged;
  };
  for (size_t at = 0; at < count; ++at) set_merge(at);
  while (count > 1) {
    size_t best = 0;
    for (size_t at = 1; at < count; ++at) {
      if (symbols_[at].rank < symbols_[best].rank) best = at;
    }
    if (symbols_[best].rank == kNoRank) break;
    symbols_[best].id = symbols_[best].merged;
    symbols_[best].end = symbols_[best + 1].end;
    std::copy(symbols_.begin() + static_cast<ptrdiff_t>(best) + 2,
              symbols_.begin() + static_cast<ptrdiff_t>(count),
              symbols_.begin() + static_cast<ptrdiff_t>(best) + 1);
    --count;
    set_merge(best);
    if (best > 0) set_merge(best - 1);
  }
  symbols_.resize(count);
}

void WordEncoder::MergeLong() {
  using Entry = std::tuple<uint32_t, size_t>;  // rank, place: the lowest first
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  const auto set_merge = [&](size_t at) {
    Symbol& symbol = symbols_[at];
    const MergeTable::Merge merge =
        symbol.next == kNone ? MergeTable::Merge() : model_.merges.Find(symbol.id, symbols_[symbol.next].id);
    symbol.rank = merge.rank;
    symbol.merged = merge.merged;
    if (merge.rank != kNoRank) queue.emplace(merge.rank, at);
  };
  for (size_t at = 0; at < symbols_.size(); ++at) {
    symbols_[at].before = at == 0 ? kNone : at - 1;
    symbols_[at].next = at + 1 < symbols_.size() ? at + 1 : kNone;
  }
  for (size_t at = 0; at < symbols_.size(); ++at) set_merge(at);
  while (!queue.empty()) {
    const auto [rank, at] = queue.top();
    queue.pop();
    Symbol& symbol = symbols_[at];
    if (symbol.rank != rank || symbol.id < 0) continue;  // of before a merge on either side
    Symbol& next = symbols_[symbol.next];
    symbol.id = symbol.merged;
    symbol.end = next.end;
    symbol.next = next.next;
    next.id = -1;
    next.rank = kNoRank;
    if (symbol.next != kNone) symbols_[symbol.next].before = at;
    set_merge(at);
    if (symbol.before != kNone) set_merge(symbol.before);
  }
  std::erase_if(symbols_, [](const Symbol& symbol) { return symbol.id < 0; });
}

}  // namespace mica
