#include "format/entropy/rans.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "format/entropy/tables.h"

namespace mica {
namespace {

// Every integer in every kind of class comes back, escapes and raw bits included.
TEST(Rans, RoundTrip) {
  std::mt19937 random(9);
  for (const int k : {0, 8, 24, 36, 37, 44, 64}) {
    const EntropyTables tables = DefaultEntropyTables(1);
    const FrequencyTable frequencies = MakeFrequencyTable(InterpolateKnots(tables.knots[0], 0, k));
    const SymbolTable table(frequencies, RawBits(k));
    std::vector<int> integers = {0, 1, -1, 63, -63, 64, -64, 65, 1000, -1000, 32767, -32767};
    for (int i = 0; i < 3000; ++i) integers.push_back(static_cast<int>(random() % 41) - 20);
    for (int i = 0; i < 300; ++i) integers.push_back(static_cast<int>(random() % 65535) - 32767);
    uint32_t state = kRansLow;
    ReversedWords reversed;
    for (size_t i = integers.size(); i-- > 0;) {
      reversed.Reserve(3);
      const uint32_t symbol = table.SymbolOf(integers[i]);
      if (symbol == table.escape()) {
        table.PutEscaped(integers[i], state, reversed);
      } else if (symbol != 0 && table.raw_bits() > 0) {
        table.PutRawBits(integers[i], state, reversed);
      }
      table.PutSymbol(symbol, state, reversed);
    }
    const std::vector<std::byte> bytes = reversed.Bytes({});
    WordStream stream(bytes, 4);
    const std::byte* words = bytes.data();
    std::vector<uint32_t> slots(kFrequencySum);
    FillSlots(frequencies, slots.data());
    for (size_t i = 0; i < integers.size(); ++i) {
      ASSERT_TRUE(stream.Reach(words)) << k << " " << i;
      const uint32_t slot = TakeSymbol(slots.data(), state);
      Refill(state, words);
      const bool raw = RawBits(k) > 0 && HasRawBits(slot);
      int n = IntegerOf(slot, RawBits(k), raw ? TakeRaw(RawBits(k), state) : 0);
      if ((slot & rans_slot::kEscape) != 0) n = TakeEscaped(state);
      Refill(state, words);
      ASSERT_EQ(n, integers[i]) << k << " " << i;
    }
    EXPECT_TRUE(stream.AtEnd(words));
    EXPECT_EQ(state, kRansLow);
  }
}

// The slots of a table say the same as its frequencies.
TEST(Rans, SlotsHoldTheTable) {
  const FrequencyTable table = MakeFrequencyTable({40, 20, 90, 60});
  std::vector<uint32_t> slots(kFrequencySum);
  FillSlots(table, slots.data());
  uint32_t start = 0;
  for (uint32_t symbol = 0; start < kFrequencySum; ++symbol) {
    const bool escape = static_cast<int>(symbol) > 2 * table.magnitudes;
    const uint32_t frequency = escape ? uint32_t{kEscapeFrequency} : table.frequency[(symbol + 1) / 2];
    for (uint32_t at = start; at < start + frequency; ++at) {
      ASSERT_EQ(rans_slot::Frequency(slots[at]), frequency) << at;
      ASSERT_EQ(rans_slot::Start(slots[at]), start) << at;
      ASSERT_EQ(rans_slot::Symbol(slots[at]), symbol) << at;
      ASSERT_EQ((slots[at] & rans_slot::kEscape) != 0, escape) << at;
    }
    start += frequency;
  }
  EXPECT_EQ(start, uint32_t{kFrequencySum});
}

}  // namespace
}  // namespace mica
