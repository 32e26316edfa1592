#include "ops/codes/codes.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/finite.h"
#include "base/threads.h"
#include "format/entropy/encode.h"
#include "format/entropy/lanes.h"
#include "format/entropy/tile_coder.h"
#include "format/fixed/encode.h"
#include "format/fixed/layout.h"
#include "ops/codes/decode_tile.h"
#include "ops/codes/integers.h"
#include "ops/codes/stored_rows.h"
#include "ops/convert/convert.h"
#include "ops/cuda_ops.h"
#include "ops/feedback/stored.h"

namespace mica {
namespace {

template <typename Parts>
void CheckRows(std::span<const RowsOf<Parts>> all) {
  for (const auto& [parts, first_row, out] : all) {
    if (out.cols != parts->cols || first_row > parts->rows || out.rows > parts->rows - first_row) {
      Fail(
          "packed matrix {} is [{}, {}], cannot give {} columns of rows {} to {}; the checkpoint does not "
          "match its config.json",
          parts->name, parts->rows, parts->cols, out.cols, first_row, first_row + out.rows);
    }
    MICA_CHECK(out.device == all[0].out.device);
    MICA_CHECK(out.dtype == all[0].out.dtype);
  }
}

// Codes of 16 bits are FP16 values, and can be what no other code can: NaN or infinite. rows: those from
// first_row on, decoded.
void CheckFinite(const FixedParts& parts, size_t first_row, MatrixView<const float> rows) {
  for (size_t r = 0; r < rows.rows; ++r) {
    const size_t c = FirstNotFinite({rows.row(r), rows.cols});
    if (c < rows.cols) FailNotFinite(parts, first_row + r, c, std::isnan(rows(r, c)));
  }
}

void DecodeOnCpu(const FixedParts& parts, size_t first_row, MatrixView<float> out) {
  const size_t last_row = first_row + out.rows;
  const size_t first_block = first_row / kBlockRows;
  const size_t blocks = (last_row + kBlockRows - 1) / kBlockRows - first_block;
  const bool halves = HasHalves(parts);
  ParallelFor(out.rows == 0 ? 0 : blocks, [&](size_t i) {
    const size_t begin = std::max(first_row, (first_block + i) * kBlockRows);
    const size_t end = std::min(last_row, (first_block + i + 1) * kBlockRows);
    const MatrixView<float> rows = out.Rows(begin - first_row, end - begin);
    DecodeRows(parts, begin, end, rows);
    if (halves) CheckFinite(parts, begin, rows);
  });
}

void DecodeOnCpu(const EntropyParts& parts, size_t first_row, MatrixView<float> out) {
  if (out.rows == 0) return;
  const TileSpan tiles = TilesOf(parts, first_row, out.rows);
  ParallelFor(tiles.count, [&](size_t i) {
    const TileRows tile(parts, tiles.first + i, first_row, out);
    if (tile.any() && !DecodeTileCpu(parts, tile)) FailTile(parts, tiles.first + i);
  });
}

// By the processor, wherever `out` is.
template <typename Parts>
void DecodeHere(const Parts& parts, size_t first_row, Tensor out) {
  const RowsOf<Parts> one{&parts, first_row, out};
  CheckRows(std::span(&one, 1));
  const bool here = out.device == Device::Cpu();
  Array decoded;
  if (!here) decoded = Array(out.rows, out.cols, DType::kF32, Device::Cpu());
  const MatrixView<float> values = here ? out.host<float>() : decoded.view().host<float>();
  constexpr size_t kRowsEach = 64;
  ParallelFor((out.rows + kRowsEach - 1) / kRowsEach, [&](size_t part) {
    const size_t first = part * kRowsEach, count = std::min(kRowsEach, out.rows - first);
    DecodeRows(parts, first_row + first, values.Rows(first, count));
  });
  if (here) return;
  const Array there = CopyTo(out.device, decoded.view());
  Convert(there.view(), out);
}

FixedStreams EncodeByRow(const FixedMatrix& matrix, const std::vector<ScaleGroup>& groups) {
  CheckIntegers(matrix, groups);
  std::vector<std::vector<std::byte>> codes(groups.size());
  ParallelFor(groups.size(), [&](size_t g) { codes[g] = EncodeGroup(matrix, groups[g]); });
  return Joined(matrix, groups, std::move(codes));
}

void CheckTensors(const FixedFrame& matrix, const std::vector<ScaleGroup>& groups,
                  const FixedIntegers& integers) {
  const auto check = [&](ConstTensor values, DType dtype, size_t rows) {
    MICA_CHECK(values.rows == rows);
    MICA_CHECK(rows == 0 || values.cols == matrix.rows);
    MICA_CHECK(rows == 0 || values.dtype == dtype);
    MICA_CHECK(rows == 0 || values.device == integers.codes.device);
  };
  check(integers.codes, DType::kU16, matrix.cols);
  if (matrix.mask != MaskKind::kNone) check(integers.keep, DType::kU8, matrix.cols);
  check(integers.scales, DType::kU8, ScaleGroupCount(groups));
  check(integers.zeros, DType::kU8, ScaleGroupCount(groups));
}

// Integers of a matrix on the processor.
template <typename T>
Tensor Integers(Matrix<T>& matrix, DType dtype) {
  return {reinterpret_cast<std::byte*>(matrix.data()),
          matrix.rows(),
          matrix.cols(),
          matrix.cols(),
          dtype,
          Device::Cpu()};
}

}  // namespace

TileSpan TilesOf(const EntropyParts& parts, size_t first_row, size_t rows) {
  if (!parts.in_order) return {0, parts.tiles()};
  const size_t first = first_row / parts.tile_rows;
  return {first, CodedTiles(first_row + rows, parts.tile_rows) - first};
}

bool HasHalves(const FixedParts& parts) {
  return std::any_of(parts.groups.begin(), parts.groups.end(),
                     [](const FixedGroup& group) { return group.bits == 16; });
}

void FailTile(const EntropyParts& parts, size_t tile) {
  Fail("{}: tile {} does not end where it should; the file is damaged, fetch it again", parts.codes_name,
       tile);
}

void FailNotFinite(const FixedParts& parts, size_t row, size_t col, bool nan) {
  Fail("{}: holds {} for row {}, column {}, expected finite values; the file is damaged, fetch it again",
       parts.codes_name, nan ? "NaN" : "infinity", row, col);
}

PackedMatrix Pack(const FixedMatrix& matrix) {
  const std::vector<ScaleGroup> groups = CheckedGroups(matrix);
  return Assemble(matrix, groups, EncodeByRow(matrix, groups));
}

PackedMatrix Pack(const FixedFrame& matrix, const FixedIntegers& integers) {
  const std::vector<ScaleGroup> groups = CheckedGroups(matrix);
  return Assemble(matrix, groups, EncodeFixed(matrix, integers));
}

FixedStreams EncodeFixed(const FixedFrame& matrix, const FixedIntegers& integers) {
  const std::vector<ScaleGroup> groups = CheckedGroups(matrix);
  CheckTensors(matrix, groups, integers);
  if (integers.codes.device.is_cuda()) return Cuda().EncodeFixed(matrix, integers);
  FixedMatrix by_row;
  static_cast<FixedFrame&>(by_row) = matrix;
  by_row.codes = Matrix<uint16_t>(matrix.rows, matrix.cols);
  IntegersByRow(integers.codes, Integers(by_row.codes, DType::kU16));
  if (matrix.mask != MaskKind::kNone) {
    by_row.keep = Matrix<uint8_t>(matrix.rows, matrix.cols);
    IntegersByRow(integers.keep, Integers(by_row.keep, DType::kU8));
  }
  by_row.scales = Matrix<ScaleCode>(integers.scales.rows, integers.scales.cols);
  Copy(integers.scales, Integers(by_row.scales, DType::kU8));
  by_row.zeros = Matrix<uint8_t>(integers.zeros.rows, integers.zeros.cols);
  Copy(integers.zeros, Integers(by_row.zeros, DType::kU8));
  return EncodeByRow(by_row, groups);
}

PackedMatrix Pack(const EntropyMatrix& matrix) { return Pack(matrix, IntegersOf(matrix)); }

PackedMatrix Pack(const EntropyMatrix& matrix, size_t lanes) {
  return Assemble(matrix, lanes, EncodeEntropy(matrix, IntegersOf(matrix), lanes));
}

PackedMatrix Pack(const EntropyFrame& matrix, ConstTensor n) {
  CheckFrame(matrix);
  const size_t lanes = ChooseLanes(matrix);
  return Assemble(matrix, lanes, EncodeEntropy(matrix, n, lanes));
}

EntropyStreams EncodeEntropy(const EntropyFrame& matrix, ConstTensor n, size_t lanes) {
  CheckFrame(matrix);
  CheckIntegers(matrix, n);
  MICA_CHECK(IsLaneCount(lanes));
  if (n.device.is_cuda()) return Cuda().EncodeEntropy(matrix, n, lanes);
  const MatrixView<const int16_t> integers = HostIntegers(n);
  const TileCoder coder(matrix.tables, matrix.states, lanes);
  const std::vector<uint32_t> order = StoredRowOrder(matrix);
  std::vector<std::vector<std::byte>> streams(matrix.tiles());
  ParallelFor(streams.size(),
              [&](size_t tile) { streams[tile] = coder.Encode(matrix, integers, order, tile); });
  return Joined(std::move(streams));
}

void Decode(const FixedMatrix& matrix, MatrixView<float> out) {
  MICA_CHECK(out.rows == matrix.rows);
  MICA_CHECK(out.cols == matrix.cols);
  MICA_CHECK(matrix.order.size() == matrix.cols);
  MICA_CHECK(matrix.widths.size() == matrix.cols);
  const std::vector<ScaleGroup> groups = ScaleGroups(matrix.widths, matrix.group_size);
  ParallelFor(matrix.rows, [&](size_t r) { DecodeRow(matrix, groups, r, out.row(r)); });
}

void Decode(const EntropyMatrix& matrix, MatrixView<float> out) {
  const std::vector<uint32_t> order = StoredRowOrder(matrix);
  ParallelFor(matrix.tiles(), [&](size_t tile) { DecodeTile(matrix, order, tile, out); });
}

void DecodeFixed(std::span<const RowsOf<FixedParts>> all) {
  CheckRows(all);
  if (!all.empty() && all[0].out.device.is_cuda()) return Cuda().DecodeFixed(all);
  for (const auto& [parts, first_row, out] : all) DecodeOnCpu(*parts, first_row, out.host<float>());
}

void DecodeEntropy(std::span<const RowsOf<EntropyParts>> all) {
  CheckRows(all);
  if (!all.empty() && all[0].out.device.is_cuda()) return Cuda().DecodeEntropy(all);
  for (const auto& [parts, first_row, out] : all) DecodeOnCpu(*parts, first_row, out.host<float>());
}

void DecodeMany(std::span<const RowsOf<AnyParts>> all) {
  std::vector<RowsOf<FixedParts>> fixed;
  std::vector<RowsOf<EntropyParts>> entropy;
  for (const auto& [parts, first_row, out] : all) {
    if (const auto* of_fixed = std::get_if<FixedParts>(parts)) {
      fixed.push_back({of_fixed, first_row, out});
    } else if (const auto* of_entropy = std::get_if<EntropyParts>(parts)) {
      entropy.push_back({of_entropy, first_row, out});
    } else if (const auto* of_gguf = std::get_if<GgufParts>(parts)) {
      Decode(*of_gguf, first_row, out);
    } else {
      Decode(std::get<CompressedTensorsParts>(*parts), first_row, out);
    }
  }
  DecodeFixed(fixed);
  DecodeEntropy(entropy);
}

void Decode(const FixedParts& parts, size_t first_row, Tensor out) {
  const RowsOf<FixedParts> one{&parts, first_row, out};
  DecodeFixed({&one, 1});
}

void Decode(const EntropyParts& parts, size_t first_row, Tensor out) {
  const RowsOf<EntropyParts> one{&parts, first_row, out};
  DecodeEntropy({&one, 1});
}

void Decode(const GgufParts& parts, size_t first_row, Tensor out) { DecodeHere(parts, first_row, out); }
void Decode(const CompressedTensorsParts& parts, size_t first_row, Tensor out) {
  DecodeHere(parts, first_row, out);
}

void Decode(const AnyParts& parts, size_t first_row, Tensor out) {
  std::visit([&](const auto& of_coding) { Decode(of_coding, first_row, out); }, parts);
}

}  // namespace mica
