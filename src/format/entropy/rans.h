// The range variant of asymmetric numeral systems (Duda, 1311.2540) that codes integers with the tables of
// entropy_tables.h: 32-bit states in [2^16, 2^32), 12-bit frequencies, 16-bit words. An encoder works
// backwards; the decoder reads words in rising order.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "format/entropy/tables.h"

namespace mica {

inline constexpr uint32_t kRansLow = 1u << 16;
inline constexpr int kEscapeBits = 16;  // an escaped integer follows as it is, in two's complement

// Slots of one table, for both directions.
class RansTable {
 public:
  RansTable() = default;
  RansTable(const FrequencyTable& table, int raw_bits) : raw_bits_(static_cast<uint8_t>(raw_bits)) {
    uint32_t start = 0;
    const auto add = [&](uint32_t frequency) {
      std::memset(symbol_.data() + start, symbols_, frequency);
      range_[symbols_++] = frequency | start << 16;
      start += frequency;
    };
    add(table.frequency[0]);
    for (int m = 1; m <= table.magnitudes; ++m) {
      add(table.frequency[static_cast<size_t>(m)]);
      add(table.frequency[static_cast<size_t>(m)]);
    }
    escape_ = symbols_;
    add(kEscapeFrequency);
  }

  // Decodes one integer from `state`; `words` is where the next word would be read, advanced by those read
  // (at most two, one more is touched).
  int Decode(uint32_t& state, const std::byte*& words) const {
    const uint32_t slot = state & (kFrequencySum - 1);
    const uint32_t symbol = symbol_[slot];
    const uint32_t range = range_[symbol];
    uint32_t x = (range & 0xFFFF) * (state >> kFrequencyBits) + slot - (range >> 16);
    Refill(x, words);
    int n = static_cast<int>((symbol + 1) >> 1);
    if (raw_bits_ != 0 && n != 0 && symbol != escape_) {
      n = ((n - 1) << raw_bits_) + static_cast<int>(x & ((1u << raw_bits_) - 1)) + 1;
      x >>= raw_bits_;
      Refill(x, words);
    }
    n = (symbol & 1) != 0 ? n : -n;
    if (symbol == escape_) [[unlikely]] {
      n = static_cast<int16_t>(x & 0xFFFF);
      x >>= kEscapeBits;
      Refill(x, words);
    }
    state = x;
    return n;
  }

  // Puts an integer in front of what `state` holds; words go to the end of `reversed`.
  void Encode(int n, uint32_t& state, std::vector<uint16_t>& reversed) const {
    const int magnitude = std::abs(n);
    const int m = SymbolMagnitude(magnitude, raw_bits_);
    const bool escaped = 2 * m >= escape_;  // symbols 2 m - 1 and 2 m come before it
    uint32_t symbol = m == 0 ? 0u : static_cast<uint32_t>(2 * m - (n > 0 ? 1 : 0));
    if (escaped) {
      symbol = escape_;
      PutRaw(static_cast<uint16_t>(n), kEscapeBits, state, reversed);
    } else if (raw_bits_ != 0 && m > 0) {
      PutRaw(static_cast<uint32_t>(magnitude - 1) & ((1u << raw_bits_) - 1), raw_bits_, state, reversed);
    }
    const uint32_t frequency = range_[symbol] & 0xFFFF;
    if (state >= (frequency << (32 - kFrequencyBits))) PutWord(state, reversed);
    state = ((state / frequency) << kFrequencyBits) + state % frequency + (range_[symbol] >> 16);
  }

 private:
  static void Refill(uint32_t& x, const std::byte*& words) {
    uint16_t word;
    std::memcpy(&word, words, sizeof(word));
    const bool low = x < kRansLow;
    x = low ? x << 16 | word : x;
    words += low ? sizeof(word) : 0;
  }
  static void PutWord(uint32_t& state, std::vector<uint16_t>& reversed) {
    reversed.push_back(static_cast<uint16_t>(state));
    state >>= 16;
  }
  static void PutRaw(uint32_t value, int bits, uint32_t& state, std::vector<uint16_t>& reversed) {
    if (static_cast<uint64_t>(state) >= uint64_t{1} << (32 - bits)) PutWord(state, reversed);
    state = state << bits | value;
  }

  std::array<uint8_t, kFrequencySum> symbol_{};
  std::array<uint32_t, 2 * kMaxMagnitude + 2> range_{};  // [symbol] frequency | first slot << 16
  uint8_t symbols_ = 0;
  uint8_t escape_ = 0;
  uint8_t raw_bits_ = 0;
};

}  // namespace mica
