#include "format/fixed/parts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "format/bits.h"
#include "format/fixed/scale_code.h"
#include "format/mask/mask_rows.h"

namespace mica {
namespace {

template <typename T>
T LoadAt(std::span<const std::byte> bytes, size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

// Weights of group g that have a code.
uint64_t Kept(const FixedParts& parts, size_t g) {
  return parts.mask == MaskKind::kNone ? uint64_t{parts.rows} * parts.groups[g].count
                                       : parts.kept_before[parts.blocks() * parts.groups.size() + g];
}

uint64_t ZeroStreamBytes(const FixedParts& parts, const ScaleGroup& group) {
  return (uint64_t{parts.rows} * group.bits + 7) / 8;
}

std::span<const std::byte> MaskRow(const FixedParts& parts, size_t row) {
  const size_t row_bytes = parts.mask.RowBytes(parts.coded_cols);
  return parts.mask_rows.subspan(row * row_bytes, row_bytes);
}

// Without 2^exponent.
float Scale(const FixedParts& parts, const ScaleGroup& group, size_t row) {
  return ToFloat(LoadAt<ScaleCode>(parts.scales, static_cast<size_t>(group.scale_row) * parts.rows + row));
}

int Zero(const FixedParts& parts, const FixedGroup& group, size_t row) {
  const uint64_t bit = uint64_t{row} * group.bits;
  const std::byte* end = parts.zeros.data() + parts.zeros.size();
  const uint64_t word = LoadWord(parts.zeros.data() + group.zeros_byte + bit / 8, end) >> (bit % 8);
  return static_cast<int>(word & ((1u << group.bits) - 1));
}

// Walks down the rows of a matrix, giving the codes of one group of the row at a time.
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

}  // namespace

void ReadRuns(FixedParts& parts) {
  const size_t count = parts.runs.size() / sizeof(WidthRun);
  std::vector<uint8_t> widths(parts.cols);
  for (size_t i = 0; i < count; ++i) {
    const WidthRun run = LoadAt<WidthRun>(parts.runs, i);
    const size_t end = i + 1 < count ? LoadAt<WidthRun>(parts.runs, i + 1).start : parts.cols;
    if ((i == 0 && run.start != 0) || run.start >= end || end > parts.cols) {
      Fail("run {} starts at column {} and ends before {}, expected rising starts from 0 within {} columns",
           i, run.start, end, parts.cols);
    }
    if (!IsKnownWidth(run.bits)) Fail("run {} has width {}, expected 0, 2, 3, 4, 6, 8 or 16", i, run.bits);
    std::fill(widths.begin() + run.start, widths.begin() + static_cast<ptrdiff_t>(end),
              static_cast<uint8_t>(run.bits));
  }
  uint64_t zero_bytes = 0;
  for (const ScaleGroup& plain : ScaleGroups(widths, parts.group_size)) {
    FixedGroup group;
    static_cast<ScaleGroup&>(group) = plain;
    group.coded_start = parts.coded_cols;
    group.zeros_byte = zero_bytes;
    if (group.bits != 0) {
      parts.coded_cols += group.count;
      parts.widest_group = std::max<size_t>(parts.widest_group, group.count);
    }
    if (group.scale_row >= 0) zero_bytes += ZeroStreamBytes(parts, group);
    parts.groups.push_back(group);
  }
}

size_t ScaleGroupCount(const FixedParts& parts) {
  return static_cast<size_t>(std::count_if(parts.groups.begin(), parts.groups.end(),
                                           [](const FixedGroup& group) { return group.scale_row >= 0; }));
}

uint64_t ZeroBytes(const FixedParts& parts) {
  uint64_t bytes = 0;
  for (const FixedGroup& group : parts.groups)
    bytes += group.scale_row >= 0 ? ZeroStreamBytes(parts, group) : 0;
  return bytes;
}

void ReadOrder(FixedParts& parts) {
  const bool narrow = OrderBytes(parts.cols) == sizeof(uint16_t);
  MICA_CHECK(parts.order.size() == OrderBytes(parts.cols) * parts.cols);
  parts.columns.resize(parts.cols);
  std::vector<bool> seen(parts.cols);
  for (size_t p = 0; p < parts.cols; ++p) {
    const uint32_t column = narrow ? LoadAt<uint16_t>(parts.order, p) : LoadAt<uint32_t>(parts.order, p);
    if (column >= parts.cols || seen[column]) {
      Fail("entry {} is {}, expected a permutation of the columns 0 to {}; the file is damaged", p, column,
           parts.cols - 1);
    }
    seen[column] = true;
    parts.columns[p] = column;
  }
}

void ReadColExponents(FixedParts& parts) {
  MICA_CHECK(parts.col_exponents.size() == parts.cols);
  for (size_t p = 0; p < parts.cols; ++p) {
    const int8_t exponent = LoadAt<int8_t>(parts.col_exponents, p);
    if (std::abs(parts.exponent + exponent) > kMaxExponent) {
      Fail("entry {} is {}, expected {} to {} beside the matrix's exponent {}; the file is damaged", p,
           exponent, -kMaxExponent - parts.exponent, kMaxExponent - parts.exponent, parts.exponent);
    }
    parts.exponents.push_back(exponent);
  }
}

void CountKept(size_t block, FixedParts& parts) {
  std::vector<uint64_t> words((parts.coded_cols + 63) / 64);
  uint64_t* kept = parts.kept_before.data() + (block + 1) * parts.groups.size();
  for (size_t r = block * kBlockRows; r < std::min(parts.rows, (block + 1) * kBlockRows); ++r) {
    if (!ReadMaskRow(parts.mask, parts.coded_cols, MaskRow(parts, r), words.data()))
      Fail("row {} holds an index that is no {} pattern; the file is damaged", r, parts.mask.name);
    for (size_t g = 0; g < parts.groups.size(); ++g) {
      const FixedGroup& group = parts.groups[g];
      if (group.bits != 0) kept[g] += CountKept(words.data(), group.coded_start, group.count);
    }
  }
}

uint64_t PlaceCodes(FixedParts& parts) {
  const size_t count = parts.groups.size();
  for (size_t i = count; i < parts.kept_before.size(); ++i)
    parts.kept_before[i] += parts.kept_before[i - count];
  uint64_t bytes = 0;
  for (size_t g = 0; g < count; ++g) {
    parts.groups[g].codes_bit = 8 * bytes;
    bytes += AlignGroup((Kept(parts, g) * parts.groups[g].bits + 7) / 8);
  }
  return bytes;
}

StoredBits BitsOf(const FixedParts& parts) {
  StoredBits bits = GroupBits(parts.rows, parts.groups, parts.mask, [&](size_t g) { return Kept(parts, g); });
  bits.scales += 8 * parts.col_exponents.size();
  bits.order = 8 * parts.order.size();
  bits.groups = 8 * parts.runs.size();
  return bits;
}

void DecodeRows(const FixedParts& parts, size_t begin, size_t end, MatrixView<float> out) {
  const float unit = std::ldexp(1.0f, parts.exponent);
  RowCursor cursor(parts, begin);
  std::vector<float> stored(parts.columns.empty() ? 0 : parts.cols);
  const std::vector<float> of_column = ColumnUnits(parts.exponents);
  std::vector<float> values(parts.widest_group);
  for (size_t r = begin; r < end; ++r, cursor.NextRow()) {
    float* target = out.row(r - begin);
    float* row = parts.columns.empty() ? target : stored.data();
    if (cursor.masked()) cursor.LoadMask();
    for (size_t g = 0; g < parts.groups.size(); ++g) {
      const FixedGroup& group = parts.groups[g];
      float* weights = row + group.start;
      if (group.bits == 0 || cursor.masked()) std::fill_n(weights, group.count, 0.0f);
      if (group.bits == 0) continue;
      const std::span<const uint16_t> codes = cursor.Codes(g);
      float* dense = cursor.masked() ? values.data() : weights;
      if (group.scale_row >= 0) {
        const int zero = Zero(parts, group, r);
        const float scale = Scale(parts, group, r) * unit;
        for (size_t j = 0; j < codes.size(); ++j) dense[j] = static_cast<float>(int{codes[j]} - zero) * scale;
      } else {
        for (size_t j = 0; j < codes.size(); ++j) dense[j] = ToFloat(F16{codes[j]}) * unit;
      }
      if (cursor.masked()) {
        const float* next = dense;
        cursor.ForKept(g, [&](size_t j) { weights[j] = *next++; });
      }
    }
    for (size_t p = 0; p < of_column.size(); ++p) row[p] *= of_column[p];
    for (size_t p = 0; p < parts.columns.size(); ++p) target[parts.columns[p]] = stored[p];
  }
}

FixedMatrix Unpack(const FixedParts& parts) {
  FixedMatrix matrix;
  static_cast<FixedFacts&>(matrix) = parts;
  matrix.order = parts.columns;
  if (parts.columns.empty()) {
    for (size_t p = 0; p < parts.cols; ++p) matrix.order.push_back(static_cast<uint32_t>(p));
  }
  matrix.col_exponents = parts.exponents;
  matrix.codes = Matrix<uint16_t>(parts.rows, parts.cols, uint16_t{0});
  const bool masked = parts.mask != MaskKind::kNone;
  if (masked) matrix.keep = Matrix<uint8_t>(parts.rows, parts.cols, uint8_t{0});
  size_t scaled = 0;
  for (const FixedGroup& group : parts.groups) {
    matrix.widths.insert(matrix.widths.end(), group.count, group.bits);
    scaled += group.scale_row >= 0 ? 1 : 0;
  }
  matrix.scales = Matrix<ScaleCode>(scaled, parts.rows);
  matrix.zeros = Matrix<uint8_t>(scaled, parts.rows);
  if (scaled > 0) std::memcpy(matrix.scales.data(), parts.scales.data(), parts.scales.size());
  RowCursor cursor(parts, 0);
  for (size_t r = 0; r < parts.rows; ++r, cursor.NextRow()) {
    if (masked) cursor.LoadMask();
    for (size_t g = 0; g < parts.groups.size(); ++g) {
      const FixedGroup& group = parts.groups[g];
      if (group.scale_row >= 0)
        matrix.zeros(static_cast<size_t>(group.scale_row), r) = static_cast<uint8_t>(Zero(parts, group, r));
      if (group.bits == 0) continue;
      const std::span<const uint16_t> codes = cursor.Codes(g);
      if (masked) {
        const uint16_t* next = codes.data();
        cursor.ForKept(g, [&](size_t j) {
          matrix.codes(r, group.start + j) = *next++;
          matrix.keep(r, group.start + j) = 1;
        });
      } else {
        std::copy(codes.begin(), codes.end(), matrix.codes.row(r) + group.start);
      }
    }
  }
  return matrix;
}

}  // namespace mica
