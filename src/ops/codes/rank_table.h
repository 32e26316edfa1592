// Frequency tables of coding `entropy` as a GPU looks symbols up in them: small enough for the memory that a
// block of threads shares, and found without a loop.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "format/entropy/tables.h"

namespace mica {

// A table is kRankBuckets words, one for each 16 slots, and then a word for each symbol. Of a bucket: bit i
// of the lower half says that a symbol begins at its slot i, the upper half how many symbols begin before it.
// Of a symbol: its first slot, and its frequency in the upper half. So with `begun` symbols that begin at a
// slot or before it, the slot is that of symbol begun - 1, whose word is kRankBuckets + begun - 1.
inline constexpr int kBucketBits = 4;
inline constexpr size_t kRankBuckets = size_t{kFrequencySum} >> kBucketBits;

// Symbols of a table, the escape included.
inline size_t Symbols(const FrequencyTable& table) { return static_cast<size_t>(2 * table.magnitudes + 2); }

// words: [kRankBuckets + Symbols(table)]
inline void FillRanks(const FrequencyTable& table, uint32_t* words) {
  for (size_t b = 0; b < kRankBuckets; ++b) words[b] = 0;
  const size_t symbols = Symbols(table);
  uint32_t start = 0;
  for (size_t s = 0; s < symbols; ++s) {
    const uint32_t frequency = s + 1 == symbols ? uint32_t{kEscapeFrequency} : table.frequency[(s + 1) / 2];
    words[start >> kBucketBits] |= 1u << (start & ((1u << kBucketBits) - 1));
    words[kRankBuckets + s] = start | frequency << 16;
    start += frequency;
  }
  uint32_t begun = 0;
  for (size_t b = 0; b < kRankBuckets; ++b) {
    const uint32_t starts = words[b];
    words[b] |= begun << 16;
    begun += static_cast<uint32_t>(std::popcount(starts));
  }
}

}  // namespace mica
