#include "format/fixed/parts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/error.h"
#include "format/fixed/row_cursor.h"

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
