// The range variant of asymmetric numeral systems (Duda, 1311.2540): 32-bit states in [2^16, 2^32), 12-bit
// frequencies, 16-bit words. An encoder works backwards; the decoder reads words in rising order. An integer
// is a symbol, then raw bits where its class has some, or, behind an escape, the integer itself; after each
// of these a state that ran low is refilled with a word.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "format/entropy/tables.h"

namespace mica {

inline constexpr uint32_t kRansLow = 1u << 16;
inline constexpr int kEscapeBits = 16;  // an escaped integer follows as it is, in two's complement

// One of the 4096 slots of a table: frequency and first slot of its symbol, 12 bits each, the symbol in 7 and
// whether that is the escape. Symbols 0, 1, 2, 3, 4, ... stand for 0, +1, -1, +2, -2, ...
namespace rans_slot {
inline constexpr int kStartShift = kFrequencyBits, kSymbolShift = 2 * kFrequencyBits;
inline constexpr uint32_t kSymbolMask = 0x7F, kEscape = 1u << 31;
static_assert(4 * kMaxZero < kFrequencySum && 2 * kMaxMagnitude + 1 <= static_cast<int>(kSymbolMask));

constexpr uint32_t Frequency(uint32_t slot) { return slot & (kFrequencySum - 1); }
constexpr uint32_t Start(uint32_t slot) { return slot >> kStartShift & (kFrequencySum - 1); }
constexpr uint32_t Symbol(uint32_t slot) { return slot >> kSymbolShift & kSymbolMask; }
}  // namespace rans_slot

// Fills the slots of a table, [kFrequencySum].
void FillSlots(const FrequencyTable& table, uint32_t* slots);

// Takes a word where the state ran low.
inline void Refill(uint32_t& state, const std::byte*& words) {
  if (state >= kRansLow) return;
  uint16_t word;
  std::memcpy(&word, words, sizeof(word));
  state = state << 16 | word;
  words += sizeof(word);
}
// The slot that the state shows; the state goes on behind its symbol and is to be refilled.
inline uint32_t TakeSymbol(const uint32_t* slots, uint32_t& state) {
  const uint32_t at = state & (kFrequencySum - 1);
  const uint32_t slot = slots[at];
  state = rans_slot::Frequency(slot) * (state >> kFrequencyBits) + at - rans_slot::Start(slot);
  return slot;
}
// The lowest bits of the state, which is to be refilled.
inline uint32_t TakeRaw(int bits, uint32_t& state) {
  const uint32_t value = state & ((1u << bits) - 1);
  state >>= bits;
  return value;
}
inline int TakeEscaped(uint32_t& state) { return static_cast<int16_t>(TakeRaw(kEscapeBits, state)); }
// Whether raw bits follow the slot's symbol in a class that has some.
constexpr bool HasRawBits(uint32_t slot) {
  return (slot & rans_slot::kEscape) == 0 && rans_slot::Symbol(slot) != 0;
}
// The integer of a symbol that is no escape; raw: its raw bits.
inline int IntegerOf(uint32_t slot, int raw_bits, uint32_t raw) {
  const uint32_t symbol = rans_slot::Symbol(slot);
  if (symbol == 0) return 0;
  const int magnitude = static_cast<int>(((((symbol + 1) >> 1) - 1) << raw_bits) + raw + 1);
  return (symbol & 1) != 0 ? magnitude : -magnitude;
}

// A stream that is read ahead of what is used: its last bytes are read from a copy with zeros behind them.
class WordStream {
 public:
  // step: bytes that are touched between two calls of Reach, of which `words` is advanced by those used.
  WordStream(std::span<const std::byte> bytes, size_t step)
      : end_(bytes.data() + bytes.size()), step_(static_cast<ptrdiff_t>(step)) {}
  // Makes another step possible at `words`; false when more was used than the stream has.
  bool Reach(const std::byte*& words) {
    if (end_ - words >= step_) [[likely]]
      return true;
    if (tail_.empty()) {
      tail_.assign(words, end_);
      tail_.resize(tail_.size() + static_cast<size_t>(step_));
      end_ = tail_.data() + (end_ - words);
      words = tail_.data();
    }
    return words <= end_;
  }
  bool AtEnd(const std::byte* words) const { return words == end_; }

 private:
  const std::byte* end_;
  ptrdiff_t step_;
  std::vector<std::byte> tail_;
};

// The words of a stream in the making, the last one first.
class ReversedWords {
 public:
  // Makes room for so many more.
  void Reserve(size_t words) {
    if (used_ + words > words_.size()) words_.resize(std::max(2 * words_.size(), used_ + words));
  }
  // Takes the lower half of a state of `limit` and more, which must not grow beyond 2^32.
  void Put(uint32_t& state, uint64_t limit) {
    const bool full = state >= limit;
    words_[used_] = static_cast<uint16_t>(state);
    used_ += full ? 1 : 0;
    state = full ? state >> 16 : state;
  }
  // The stream: the states, then the words.
  std::vector<std::byte> Bytes(std::span<const uint32_t> states) const;

 private:
  std::vector<uint16_t> words_;
  size_t used_ = 0;
};

// Symbols of one table for the encoder, which puts each part of an integer in front of what a state holds.
// Room for one word each is reserved by the caller.
class SymbolTable {
 public:
  SymbolTable() = default;
  SymbolTable(const FrequencyTable& table, int raw_bits);

  int raw_bits() const { return raw_bits_; }
  uint32_t escape() const { return escape_; }
  // The symbol of an integer: escape() where it has none of its own.
  uint32_t SymbolOf(int n) const {
    const int m = SymbolMagnitude(std::abs(n), raw_bits_);
    const uint32_t symbol = m == 0 ? 0u : static_cast<uint32_t>(2 * m - (n > 0 ? 1 : 0));
    return std::min(symbol, escape_);
  }
  void PutEscaped(int n, uint32_t& state, ReversedWords& words) const {
    PutRaw(static_cast<uint16_t>(n), kEscapeBits, state, words);
  }
  // n has a symbol other than zero and escape, its class raw bits.
  void PutRawBits(int n, uint32_t& state, ReversedWords& words) const {
    PutRaw(static_cast<uint32_t>(std::abs(n) - 1) & ((1u << raw_bits_) - 1), raw_bits_, state, words);
  }
  void PutSymbol(uint32_t symbol, uint32_t& state, ReversedWords& words) const {
    const uint32_t frequency = rans_slot::Frequency(range_[symbol]);
    words.Put(state, uint64_t{frequency} << (32 - kFrequencyBits));
    state = ((state / frequency) << kFrequencyBits) + state % frequency + rans_slot::Start(range_[symbol]);
  }

 private:
  static void PutRaw(uint32_t value, int bits, uint32_t& state, ReversedWords& words) {
    words.Put(state, uint64_t{1} << (32 - bits));
    state = state << bits | value;
  }
  std::array<uint32_t, 2 * kMaxMagnitude + 2> range_{};  // [symbol] as in a slot
  uint32_t escape_ = 0;
  int raw_bits_ = 0;
};

}  // namespace mica
