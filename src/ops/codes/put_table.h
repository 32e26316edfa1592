// Symbols of coding `entropy` as a GPU encodes them: the quotient of a state and a frequency is a product.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/error.h"
#include "format/entropy/rans.h"
#include "format/entropy/tables.h"
#include "ops/codes/rank_table.h"

namespace mica {

// Of a symbol of frequency f. A state x of f << 20 and more gives its lower half as a word and becomes the
// upper one. Then, with q = (x * reciprocal, and reciprocal once more with kAdd) >> 32 >> shift, which is x /
// f, it becomes x + start + q * (kFrequencySum - f).
struct alignas(8) PutSymbol {
  uint32_t reciprocal;
  uint32_t fields;
};
namespace put_symbol {
inline constexpr uint32_t kFrequencyMask = 0x1FFF;  // bits 0 to 12: frequency, up to kFrequencySum
inline constexpr int kShift = 13;                   // bits 13 to 16
inline constexpr uint32_t kShiftMask = 0xF;
inline constexpr uint32_t kAdd = 1u << 17;
inline constexpr uint32_t kRaw = 1u << 18, kEscape = 1u << 19;  // what stands behind the symbol
inline constexpr int kStart = 20;                               // bits 20 to 31: its first slot
static_assert(kStart + kFrequencyBits == 32);
// What a lane without an integer puts: whatever its state is, it stays, and gives no word.
inline constexpr uint32_t kNothing = kFrequencySum;

// The reciprocal is 2^k / f, k = 31 + L, f at most 2^L, rounded up where its excess over f, times f, is 2^(k
// - 20) or less: then it is near enough for all states below f << 20. Otherwise it is rounded down, of which
// as much is true, for one of both is off by f / 2 or less and f^2 / 2 <= 2^(11 + L).
inline PutSymbol Make(uint32_t frequency, uint32_t start, uint32_t flags) {
  MICA_CHECK(frequency > 0 && frequency < static_cast<uint32_t>(kFrequencySum));
  const uint32_t rest = frequency | start << kStart | flags;
  if (frequency == 1) return {0xFFFFFFFFu, rest | kAdd};
  int log = 1;
  while (uint32_t{1} << log < frequency) ++log;
  const int k = 31 + log;
  const uint64_t below = (uint64_t{1} << k) / frequency, left = (uint64_t{1} << k) % frequency;
  const bool up = left == 0 || (frequency - left) * frequency <= uint64_t{1} << (k - 20);
  MICA_CHECK(up || left * frequency <= uint64_t{1} << (k - 20));
  const uint64_t reciprocal = below + (up && left > 0 ? 1 : 0);
  MICA_CHECK((reciprocal >> 32) == 0);
  return {static_cast<uint32_t>(reciprocal),
          rest | static_cast<uint32_t>(log - 1) << kShift | (up ? 0 : kAdd)};
}
}  // namespace put_symbol

// symbols: [count] those of a table in their order, and the escape again for all that are left.
inline void FillPutSymbols(const FrequencyTable& table, int raw_bits, PutSymbol* symbols, size_t count) {
  const size_t escape = Symbols(table) - 1;
  MICA_CHECK(count > escape);
  uint32_t start = 0;
  for (size_t s = 0; s < escape; ++s) {
    const uint32_t frequency = table.frequency[(s + 1) / 2];
    symbols[s] = put_symbol::Make(frequency, start, s > 0 && raw_bits > 0 ? put_symbol::kRaw : 0);
    start += frequency;
  }
  const PutSymbol of_escape = put_symbol::Make(kEscapeFrequency, start, put_symbol::kEscape);
  for (size_t s = escape; s < count; ++s) symbols[s] = of_escape;
}

}  // namespace mica
