#include "format/mask/mask_rows.h"

#include <array>
#include <bit>
#include <cstring>

#include "format/bits.h"
#include "format/mask/sparsity_pattern.h"

namespace mica {
namespace {

// An n:m pattern, a bitmap of m bits, is stored as its rank among all patterns with n ones, the lists of kept
// positions being in lexicographic order: 2:4 has {0,1} {0,2} {0,3} {1,2} {1,3} {2,3}.
template <int kKept, int kBlock, int kIndexBits>
struct Patterns {
  std::array<uint8_t, (1 << kIndexBits)> bitmap{};  // by rank
  std::array<uint8_t, (1 << kBlock)> rank{};        // by bitmap; 255 when it does not have kKept ones
  int count = 0;

  constexpr Patterns() {
    for (auto& entry : rank) entry = 255;
    // Position 0 as the highest bit makes falling numbers the lexicographic order of the lists.
    for (int reversed = (1 << kBlock) - 1; reversed >= 0; --reversed) {
      int map = 0;
      for (int i = 0; i < kBlock; ++i) map |= ((reversed >> (kBlock - 1 - i)) & 1) << i;
      if (std::popcount(static_cast<unsigned>(map)) != kKept) continue;
      bitmap[static_cast<size_t>(count)] = static_cast<uint8_t>(map);
      rank[static_cast<size_t>(map)] = static_cast<uint8_t>(count++);
    }
  }
};

constexpr Patterns<2, 4, 3> kTwoOfFourPatterns;
constexpr Patterns<4, 8, 7> kFourOfEightPatterns;
static_assert(kTwoOfFourPatterns.count == 6 && kFourOfEightPatterns.count == 70);
static_assert(kTwoOfFourPatterns.bitmap[0] == 0b0011 && kTwoOfFourPatterns.bitmap[5] == 0b1100);
static_assert(kFourOfEightPatterns.bitmap[1] == 0b00010111 && kFourOfEightPatterns.bitmap[69] == 0b11110000);

template <int kKept, int kBlock, int kIndexBits>
void AppendBlocks(const Patterns<kKept, kBlock, kIndexBits>& patterns, std::span<const uint8_t> keep,
                  BitWriter& writer) {
  size_t i = 0;
  for (; i + kBlock <= keep.size(); i += kBlock) {
    unsigned map = 0;
    for (size_t k = 0; k < kBlock; ++k) map |= (keep[i + k] != 0 ? 1u : 0u) << k;
    MICA_CHECK(patterns.rank[map] != 255);
    writer.Put(patterns.rank[map], kIndexBits);
  }
  for (; i < keep.size(); ++i) writer.Put(keep[i] != 0, 1);
}

template <int kKept, int kBlock, int kIndexBits>
bool ReadBlocks(const Patterns<kKept, kBlock, kIndexBits>& patterns, size_t coded_cols,
                std::span<const std::byte> bytes, uint64_t* words) {
  const std::byte* end = bytes.data() + bytes.size();
  bool valid = true;
  uint64_t bit = 0;
  size_t i = 0;
  for (; i + kBlock <= coded_cols; i += kBlock, bit += kIndexBits) {
    const size_t rank = (LoadWord(bytes.data() + bit / 8, end) >> (bit % 8)) & ((1u << kIndexBits) - 1);
    valid = valid && rank < static_cast<size_t>(patterns.count);
    words[i / 64] |= uint64_t{patterns.bitmap[rank]} << (i % 64);
  }
  for (; i < coded_cols; ++i, ++bit) {
    words[i / 64] |= ((LoadWord(bytes.data() + bit / 8, end) >> (bit % 8)) & 1) << (i % 64);
  }
  return valid;
}

}  // namespace

const char* MaskName(MaskKind mask) {
  switch (mask) {
    case MaskKind::kNone:
      return "none";
    case MaskKind::kBitmap:
      return "bitmap";
    case MaskKind::kTwoOfFour:
      return "2:4";
    case MaskKind::kFourOfEight:
      return "4:8";
  }
  MICA_CHECK(false);
}

bool ParseMaskName(const std::string& name, MaskKind& mask) {
  for (const MaskKind kind :
       {MaskKind::kNone, MaskKind::kBitmap, MaskKind::kTwoOfFour, MaskKind::kFourOfEight}) {
    if (name != MaskName(kind)) continue;
    mask = kind;
    return true;
  }
  return false;
}

uint64_t MaskRowBits(MaskKind mask, size_t coded_cols) {
  switch (mask) {
    case MaskKind::kNone:
      return 0;
    case MaskKind::kBitmap:
      return coded_cols;
    case MaskKind::kTwoOfFour:
      return coded_cols / 4 * 3 + coded_cols % 4;
    case MaskKind::kFourOfEight:
      return coded_cols / 8 * 7 + coded_cols % 8;
  }
  MICA_CHECK(false);
}

void AppendMaskRow(MaskKind mask, std::span<const uint8_t> keep, std::vector<std::byte>& bytes) {
  BitWriter writer(bytes);
  switch (mask) {
    case MaskKind::kNone:
      break;
    case MaskKind::kBitmap:
      for (const uint8_t kept : keep) writer.Put(kept != 0, 1);
      break;
    case MaskKind::kTwoOfFour:
      AppendBlocks(kTwoOfFourPatterns, keep, writer);
      break;
    case MaskKind::kFourOfEight:
      AppendBlocks(kFourOfEightPatterns, keep, writer);
      break;
  }
  writer.Align(1);
}

bool ReadMaskRow(MaskKind mask, size_t coded_cols, std::span<const std::byte> bytes, uint64_t* words) {
  const size_t count = (coded_cols + 63) / 64;
  std::memset(words, 0, count * sizeof(uint64_t));
  switch (mask) {
    case MaskKind::kNone:
      break;
    case MaskKind::kBitmap:
      std::memcpy(words, bytes.data(), (coded_cols + 7) / 8);
      if (coded_cols % 64 != 0) words[count - 1] &= (uint64_t{1} << (coded_cols % 64)) - 1;
      break;
    case MaskKind::kTwoOfFour:
      return ReadBlocks(kTwoOfFourPatterns, coded_cols, bytes, words);
    case MaskKind::kFourOfEight:
      return ReadBlocks(kFourOfEightPatterns, coded_cols, bytes, words);
  }
  return true;
}

size_t CountKept(const uint64_t* words, size_t first, size_t count) {
  size_t kept = 0;
  while (count > 0) {
    const size_t offset = first % 64;
    const size_t take = count < 64 - offset ? count : 64 - offset;
    uint64_t word = words[first / 64] >> offset;
    if (take < 64) word &= (uint64_t{1} << take) - 1;
    kept += static_cast<size_t>(std::popcount(word));
    first += take;
    count -= take;
  }
  return kept;
}

}  // namespace mica
