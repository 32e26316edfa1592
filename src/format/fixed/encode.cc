#include "format/fixed/encode.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/bits.h"
#include "format/fixed/layout.h"
#include "format/mask/mask_rows.h"

namespace mica {
namespace {

bool IsIdentity(const std::vector<uint32_t>& order) {
  for (size_t p = 0; p < order.size(); ++p) {
    if (order[p] != p) return false;
  }
  return true;
}

std::vector<std::byte> MaskBytes(const FixedMatrix& matrix) {
  std::vector<std::byte> bytes;
  std::vector<uint8_t> keep;
  for (size_t r = 0; r < matrix.rows; ++r) {
    keep.clear();
    for (size_t p = 0; p < matrix.cols; ++p) {
      if (matrix.widths[p] != 0) keep.push_back(matrix.keep(r, p));
    }
    AppendMaskRow(matrix.mask, keep, bytes);
  }
  return bytes;
}

template <typename T>
std::vector<std::byte> AsBytes(const T* values, size_t count) {
  std::vector<std::byte> bytes(count * sizeof(T));
  if (count > 0) std::memcpy(bytes.data(), values, bytes.size());
  return bytes;
}

}  // namespace

std::vector<ScaleGroup> CheckedGroups(const FixedFrame& matrix) {
  std::vector<ScaleGroup> groups = ScaleGroups(matrix.widths, matrix.group_size);
  MICA_CHECK(matrix.rows > 0);
  MICA_CHECK(matrix.cols > 0);
  MICA_CHECK(matrix.order.size() == matrix.cols);
  MICA_CHECK(matrix.widths.size() == matrix.cols);
  MICA_CHECK(std::abs(matrix.exponent) <= kMaxExponent);
  MICA_CHECK(matrix.col_exponents.empty() || matrix.col_exponents.size() == matrix.cols);
  for (const int8_t exponent : matrix.col_exponents)
    MICA_CHECK(std::abs(matrix.exponent + exponent) <= kMaxExponent);
  std::vector<bool> seen(matrix.cols);
  for (const uint32_t column : matrix.order) {
    MICA_CHECK(column < matrix.cols);
    MICA_CHECK(!seen[column]);
    seen[column] = true;
  }
  return groups;
}

void CheckIntegers(const FixedMatrix& matrix, const std::vector<ScaleGroup>& groups) {
  MICA_CHECK(matrix.codes.rows() == matrix.rows);
  MICA_CHECK(matrix.codes.cols() == matrix.cols);
  const bool masked = matrix.mask != MaskKind::kNone;
  MICA_CHECK(!masked || (matrix.keep.rows() == matrix.rows && matrix.keep.cols() == matrix.cols));
  const size_t scaled = ScaleGroupCount(groups);
  MICA_CHECK(scaled == 0 || (matrix.scales.rows() == scaled && matrix.scales.cols() == matrix.rows));
  MICA_CHECK(scaled == 0 || (matrix.zeros.rows() == scaled && matrix.zeros.cols() == matrix.rows));
}

std::vector<std::byte> EncodeGroup(const FixedMatrix& matrix, const ScaleGroup& group) {
  std::vector<std::byte> bytes;
  if (group.bits == 0) return bytes;
  bytes.reserve(AlignGroup((matrix.rows * group.count * group.bits + 7) / 8));
  const bool masked = matrix.mask != MaskKind::kNone;
  BitWriter writer(bytes);
  for (size_t r = 0; r < matrix.rows; ++r) {
    for (size_t p = group.start; p < group.start + group.count; ++p) {
      if (masked && matrix.keep(r, p) == 0) continue;
      const uint16_t code = matrix.codes(r, p);
      MICA_CHECK(code < (uint32_t{1} << group.bits));
      writer.Put(code, group.bits);
    }
  }
  writer.Align(kGroupAlignment);
  return bytes;
}

FixedStreams Joined(const FixedMatrix& matrix, const std::vector<ScaleGroup>& groups,
                    std::vector<std::vector<std::byte>> codes) {
  MICA_CHECK(codes.size() == groups.size());
  FixedStreams streams;
  for (std::vector<std::byte>& of_group : codes) {
    streams.codes.insert(streams.codes.end(), of_group.begin(), of_group.end());
    of_group = {};
  }
  streams.scales = AsBytes(matrix.scales.data(), ScaleGroupCount(groups) * matrix.rows);
  for (const ScaleGroup& group : groups) {
    if (group.scale_row < 0) continue;
    BitWriter writer(streams.zeros);
    const uint8_t* row = matrix.zeros.row(static_cast<size_t>(group.scale_row));
    for (size_t r = 0; r < matrix.rows; ++r) {
      MICA_CHECK(row[r] < (1u << group.bits));
      writer.Put(row[r], group.bits);
    }
    writer.Align(1);
  }
  if (matrix.mask != MaskKind::kNone) streams.mask = MaskBytes(matrix);
  return streams;
}

PackedMatrix Assemble(const FixedFrame& matrix, const std::vector<ScaleGroup>& groups, FixedStreams streams) {
  PackedMatrix packed{static_cast<const FixedFacts&>(matrix), {}};
  const auto add = [&](PartKind kind, DType dtype, std::vector<uint64_t> shape,
                       std::vector<std::byte> bytes) {
    if (bytes.empty()) return;
    packed.parts.push_back({kind, dtype, std::move(shape), std::move(bytes)});
  };

  const uint64_t code_bytes = streams.codes.size();
  add(PartKind::kCodes, DType::kU8, {code_bytes}, std::move(streams.codes));
  std::vector<WidthRun> runs;
  for (const ScaleGroup& group : groups) {
    if (runs.empty() || runs.back().bits != group.bits) runs.push_back({group.start, group.bits});
  }
  add(PartKind::kScales, DType::kU8, {ScaleGroupCount(groups), matrix.rows}, std::move(streams.scales));
  const uint64_t zero_bytes = streams.zeros.size();
  add(PartKind::kZeros, DType::kU8, {zero_bytes}, std::move(streams.zeros));
  if (!IsIdentity(matrix.order)) {
    const bool narrow = OrderBytes(matrix.cols) == sizeof(uint16_t);
    const std::vector<uint16_t> halves(matrix.order.begin(),
                                       narrow ? matrix.order.end() : matrix.order.begin());
    add(PartKind::kOrder, narrow ? DType::kU16 : DType::kU32, {matrix.cols},
        narrow ? AsBytes(halves.data(), halves.size()) : AsBytes(matrix.order.data(), matrix.cols));
  }
  add(PartKind::kRuns, DType::kU32, {runs.size(), 2}, AsBytes(runs.data(), runs.size()));
  const std::vector<int8_t>& exponents = matrix.col_exponents;
  if (std::any_of(exponents.begin(), exponents.end(), [](int8_t e) { return e != 0; }))
    add(PartKind::kColExponents, DType::kI8, {matrix.cols}, AsBytes(exponents.data(), exponents.size()));
  const uint64_t mask_row_bytes = streams.mask.size() / matrix.rows;
  add(PartKind::kMask, DType::kU8, {matrix.rows, mask_row_bytes}, std::move(streams.mask));
  return packed;
}

}  // namespace mica
