#include "format/mask/mask_rows.h"

#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/bits.h"

namespace mica {
namespace {

// A cell of an n:m mask, a bitmap of m bits, is stored as its rank among all patterns with n ones, the lists
// of kept positions being in lexicographic order: 2:4 has {0,1} {0,2} {0,3} {1,2} {1,3} {2,3}.
template <size_t kRow>
struct Patterns {
  static constexpr size_t kKept = kMaskKinds[kRow].kept, kCols = kMaskKinds[kRow].cols;
  static constexpr int kBits = kMaskKinds[kRow].cell_bits;
  std::array<uint8_t, (size_t{1} << kBits)> bitmap{};  // by rank
  std::array<uint8_t, (size_t{1} << kCols)> rank{};    // by bitmap; 255 when it does not have kKept ones
  size_t count = 0;

  constexpr Patterns() {
    for (auto& entry : rank) entry = 255;
    // Position 0 as the highest bit makes falling numbers the lexicographic order of the lists.
    for (size_t reversed = size_t{1} << kCols; reversed-- > 0;) {
      size_t map = 0;
      for (size_t i = 0; i < kCols; ++i) map |= ((reversed >> (kCols - 1 - i)) & 1) << i;
      if (std::popcount(map) != static_cast<int>(kKept)) continue;
      bitmap[count] = static_cast<uint8_t>(map);
      rank[map] = static_cast<uint8_t>(count++);
    }
  }
};
template <size_t kRow>
constexpr Patterns<kRow> kPatterns;
static_assert(kPatterns<2>.count == 6 && kPatterns<3>.count == 70);
static_assert(kPatterns<2>.bitmap[0] == 0b0011 && kPatterns<2>.bitmap[5] == 0b1100);
static_assert(kPatterns<3>.bitmap[1] == 0b00010111 && kPatterns<3>.bitmap[69] == 0b11110000);

// The bitmap of eight columns by the ranks of their cells, with bit 8 where one is none of the patterns.
template <size_t kRow>
struct EightColumns {
  static constexpr size_t kCells = 8 / Patterns<kRow>::kCols;
  static constexpr int kBits = static_cast<int>(kCells) * Patterns<kRow>::kBits;
  std::array<uint16_t, size_t{1} << kBits> columns{};

  constexpr EightColumns() {
    constexpr Patterns<kRow> patterns;
    for (size_t ranks = 0; ranks < columns.size(); ++ranks) {
      for (size_t cell = 0; cell < kCells; ++cell) {
        const size_t rank = (ranks >> (cell * patterns.kBits)) & ((size_t{1} << patterns.kBits) - 1);
        columns[ranks] |= static_cast<uint16_t>(
            rank < patterns.count ? patterns.bitmap[rank] << (cell * patterns.kCols) : 0x100);
      }
    }
  }
};
template <size_t kRow>
constexpr EightColumns<kRow> kEightColumns;

// Append and Read of the mask in row kRow of kMaskKinds.
template <size_t kRow>
void Append(std::span<const uint8_t> keep, std::vector<std::byte>& bytes) {
  constexpr MaskKind kMask = kMaskKinds[kRow];
  BitWriter writer(bytes);  // here, so that it stays in registers
  size_t i = 0;
  if constexpr (kMask.cols > 0) {
    for (; i + kMask.cols <= keep.size(); i += kMask.cols) {
      size_t map = 0;
      for (size_t k = 0; k < kMask.cols; ++k) map |= size_t{keep[i + k] != 0} << k;
      const uint8_t rank = kPatterns<kRow>.rank[map];
      MICA_CHECK(rank != 255);
      writer.Put(rank, kMask.cell_bits);
    }
  }
  if constexpr (kMask.column_bits > 0) {
    for (; i < keep.size(); ++i) writer.Put(keep[i] != 0, 1);
  }
  writer.Align(1);
}

template <size_t kRow>
bool Read(size_t coded_cols, std::span<const std::byte> bytes, uint64_t* words) {
  constexpr MaskKind kMask = kMaskKinds[kRow];
  const size_t count = (coded_cols + 63) / 64;
  std::memset(words, 0, count * sizeof(uint64_t));
  if constexpr (kMask.cols == 0 && kMask.column_bits > 0) {
    std::memcpy(words, bytes.data(), (coded_cols + 7) / 8);
    if (coded_cols % 64 != 0) words[count - 1] &= (uint64_t{1} << (coded_cols % 64)) - 1;
  }
  bool valid = true;
  if constexpr (kMask.cols > 0) {
    constexpr const Patterns<kRow>& patterns = kPatterns<kRow>;
    static_assert(64 % kMask.cols == 0 && patterns.count <= patterns.bitmap.size());
    const std::byte* end = bytes.data() + bytes.size();
    uint64_t bit = 0;
    size_t i = 0;
    // A word at a time: its ranks are within one load.
    using Eight = EightColumns<kRow>;
    static_assert(8 % kMask.cols == 0 && 8 * Eight::kBits <= 57);
    unsigned invalid = 0;
    for (; i + 64 <= coded_cols; i += 64, bit += 8 * Eight::kBits) {
      uint64_t ranks = LoadWord(bytes.data() + bit / 8, end) >> (bit % 8), word = 0;
      for (int eight = 0; eight < 8; ++eight, ranks >>= Eight::kBits) {
        const uint16_t columns = kEightColumns<kRow>.columns[ranks & ((uint64_t{1} << Eight::kBits) - 1)];
        invalid |= columns;
        word |= uint64_t{columns & 0xFFu} << (8 * eight);
      }
      words[i / 64] = word;
    }
    valid = (invalid & 0x100) == 0;
    for (; i + kMask.cols <= coded_cols; i += kMask.cols, bit += kMask.cell_bits) {
      const size_t rank =
          (LoadWord(bytes.data() + bit / 8, end) >> (bit % 8)) & ((1u << kMask.cell_bits) - 1);
      valid = valid && rank < patterns.count;
      words[i / 64] |= uint64_t{patterns.bitmap[rank]} << (i % 64);
    }
    for (; i < coded_cols; ++i, ++bit) {
      words[i / 64] |= ((LoadWord(bytes.data() + bit / 8, end) >> (bit % 8)) & 1) << (i % 64);
    }
  }
  return valid;
}

// [mask] the functions of every row of the table.
constexpr auto kAppend = []<size_t... kRows>(std::index_sequence<kRows...>) {
  return std::array{&Append<kRows>...};
}
(std::make_index_sequence<kMaskKinds.size()>());
constexpr auto kRead = []<size_t... kRows>(std::index_sequence<kRows...>) {
  return std::array{&Read<kRows>...};
}
(std::make_index_sequence<kMaskKinds.size()>());

}  // namespace

void AppendMaskRow(MaskKind mask, std::span<const uint8_t> keep, std::vector<std::byte>& bytes) {
  kAppend[mask.row](keep, bytes);
}

bool ReadMaskRow(MaskKind mask, size_t coded_cols, std::span<const std::byte> bytes, uint64_t* words) {
  return kRead[mask.row](coded_cols, bytes, words);
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
