// Walks down the rows of a matrix's stored tensors, one group's codes at a time.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/error.h"
#include "format/bits.h"
#include "format/fixed/layout.h"
#include "format/fixed/parts.h"
#include "format/fixed/scale_code.h"
#include "format/mask/mask_rows.h"

namespace mica {

// The stored mask of a row.
inline std::span<const std::byte> MaskRow(const FixedParts& parts, size_t row) {
  const size_t row_bytes = parts.mask.RowBytes(parts.coded_cols);
  return parts.mask_rows.subspan(row * row_bytes, row_bytes);
}

inline ScaleCode CodeOfScale(const FixedParts& parts, const ScaleGroup& group, size_t row) {
  return {static_cast<uint8_t>(parts.scales[static_cast<size_t>(group.scale_row) * parts.rows + row])};
}
// Of a row and a group that has them; the scale without 2^exponent.
inline float Scale(const FixedParts& parts, const ScaleGroup& group, size_t row) {
  return ToFloat(CodeOfScale(parts, group, row));
}

inline int Zero(const FixedParts& parts, const FixedGroup& group, size_t row) {
  const uint64_t bit = uint64_t{row} * group.bits;
  const std::byte* end = parts.zeros.data() + parts.zeros.size();
  const uint64_t word = LoadWord(parts.zeros.data() + group.zeros_byte + bit / 8, end) >> (bit % 8);
  return static_cast<int>(word & ((1u << group.bits) - 1));
}

class RowCursor {
 public:
  // Stands before `row`.
  RowCursor(const FixedParts& parts, size_t row)
      : parts_(parts),
        row_(row),
        bit_(parts.groups.size()),
        words_((parts.coded_cols + 63) / 64),
        buffer_(parts.widest_group) {
    if (!masked()) {
      for (size_t g = 0; g < bit_.size(); ++g) {
        const FixedGroup& group = parts_.groups[g];
        bit_[g] = group.codes_bit + uint64_t{row} * group.count * group.bits;
      }
      return;
    }
    const size_t block = row / kBlockRows;
    for (size_t g = 0; g < bit_.size(); ++g) {
      const FixedGroup& group = parts_.groups[g];
      bit_[g] = group.codes_bit + parts_.kept_before[block * bit_.size() + g] * group.bits;
    }
    for (row_ = block * kBlockRows; row_ < row; ++row_) {
      LoadMask();
      for (size_t g = 0; g < bit_.size(); ++g) {
        const FixedGroup& group = parts_.groups[g];
        if (group.bits != 0) bit_[g] += CountKept(words_.data(), group.coded_start, group.count) * group.bits;
      }
    }
  }

  bool masked() const { return parts_.mask != MaskKind::kNone; }
  void NextRow() { ++row_; }
  // Reads the mask of the current row; before the groups of each row when masked.
  void LoadMask() { ReadMaskRow(parts_.mask, parts_.coded_cols, MaskRow(parts_, row_), words_.data()); }
  // Bit i: whether coded column i is kept; of the mask that was read.
  const uint64_t* words() const { return words_.data(); }
  // Codes of the kept weights of group g in the current row; each group of a row must be asked for once,
  // groups of width 0 need not.
  std::span<const uint16_t> Codes(size_t g) {
    const FixedGroup& group = parts_.groups[g];
    const size_t count = masked() ? CountKept(words_.data(), group.coded_start, group.count) : group.count;
    const std::byte* base = parts_.codes.data();
    const std::byte* end = base + parts_.codes.size();
    uint16_t* out = buffer_.data();
    switch (group.bits) {
      case 2:
        ExtractBits<2>(base, end, bit_[g], count, out);
        break;
      case 3:
        ExtractBits<3>(base, end, bit_[g], count, out);
        break;
      case 4:
        ExtractBits<4>(base, end, bit_[g], count, out);
        break;
      case 6:
        ExtractBits<6>(base, end, bit_[g], count, out);
        break;
      case 8:
        ExtractBits<8>(base, end, bit_[g], count, out);
        break;
      case 16:
        ExtractBits<16>(base, end, bit_[g], count, out);
        break;
      default:
        MICA_CHECK(false);
    }
    bit_[g] += uint64_t{count} * group.bits;
    return {out, count};
  }
  // Calls place(j) for the kept columns j (from the group's start) of the current row, left to right.
  template <typename Place>
  void ForKept(size_t g, Place&& place) const {
    const FixedGroup& group = parts_.groups[g];
    for (size_t j = 0; j < group.count;) {
      const size_t position = group.coded_start + j;
      const size_t take = std::min<size_t>(64 - position % 64, group.count - j);
      uint64_t word = words_[position / 64] >> (position % 64);
      if (take < 64) word &= (uint64_t{1} << take) - 1;
      for (; word != 0; word &= word - 1) place(j + static_cast<size_t>(std::countr_zero(word)));
      j += take;
    }
  }

 private:
  const FixedParts& parts_;
  size_t row_;
  std::vector<uint64_t> bit_;    // [groups] next bit in codes
  std::vector<uint64_t> words_;  // mask of the current row
  std::vector<uint16_t> buffer_;
};

}  // namespace mica
