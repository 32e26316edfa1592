#include "ops/codes/codes.h"

#include <algorithm>
#include <cmath>
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

namespace mica {
namespace {

template <typename Parts>
void CheckRange(const Parts& parts, size_t first_row, MatrixView<float> out) {
  if (out.cols == parts.cols && first_row <= parts.rows && out.rows <= parts.rows - first_row) return;
  Fail(
      "packed matrix {} is [{}, {}], cannot give {} columns of rows {} to {}; the checkpoint does not match "
      "its "
      "config.json",
      parts.name, parts.rows, parts.cols, out.cols, first_row, first_row + out.rows);
}

// Codes of 16 bits are FP16 values, and can be what no other code can: NaN or infinite. rows: those from
// first_row on, decoded.
void CheckRows(const FixedParts& parts, size_t first_row, MatrixView<const float> rows) {
  for (size_t r = 0; r < rows.rows; ++r) {
    const size_t c = FirstNotFinite({rows.row(r), rows.cols});
    if (c == rows.cols) continue;
    Fail("{}: holds {} for row {}, column {}, expected finite values; the file is damaged, fetch it again",
         parts.codes_name, std::isnan(rows(r, c)) ? "NaN" : "infinity", first_row + r, c);
  }
}

}  // namespace

PackedMatrix Pack(const FixedMatrix& matrix) {
  const std::vector<ScaleGroup> groups = CheckedGroups(matrix);
  std::vector<std::vector<std::byte>> streams(groups.size());
  ParallelFor(groups.size(), [&](size_t g) { streams[g] = EncodeGroup(matrix, groups[g]); });
  return Assemble(matrix, groups, std::move(streams));
}

PackedMatrix Pack(const EntropyMatrix& matrix) {
  CheckMatrix(matrix);
  return Pack(matrix, ChooseLanes(matrix));
}

PackedMatrix Pack(const EntropyMatrix& matrix, size_t lanes) {
  CheckMatrix(matrix);
  const TileCoder coder(matrix.tables, matrix.states, lanes);
  const std::vector<uint32_t> order = StoredRowOrder(matrix);
  std::vector<std::vector<std::byte>> streams(matrix.tiles());
  ParallelFor(streams.size(), [&](size_t tile) { streams[tile] = coder.Encode(matrix, order, tile); });
  return Assemble(matrix, lanes, std::move(streams));
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

void Decode(const FixedParts& parts, size_t first_row, MatrixView<float> out) {
  CheckRange(parts, first_row, out);
  const bool halves = std::any_of(parts.groups.begin(), parts.groups.end(),
                                  [](const FixedGroup& group) { return group.bits == 16; });
  const size_t last_row = first_row + out.rows;
  const size_t first_block = first_row / kBlockRows;
  const size_t blocks = (last_row + kBlockRows - 1) / kBlockRows - first_block;
  ParallelFor(out.rows == 0 ? 0 : blocks, [&](size_t i) {
    const size_t begin = std::max(first_row, (first_block + i) * kBlockRows);
    const size_t end = std::min(last_row, (first_block + i + 1) * kBlockRows);
    const MatrixView<float> rows = out.Rows(begin - first_row, end - begin);
    DecodeRows(parts, begin, end, rows);
    if (halves) CheckRows(parts, begin, rows);
  });
}

void Decode(const EntropyParts& parts, size_t first_row, MatrixView<float> out) {
  CheckRange(parts, first_row, out);
  if (out.rows == 0) return;
  // Rows in their own order stand in known tiles; otherwise any tile may hold one of them.
  const size_t first_tile = parts.in_order ? first_row / parts.tile_rows : 0;
  const size_t end_tile = parts.in_order ? CodedTiles(first_row + out.rows, parts.tile_rows) : parts.tiles();
  ParallelFor(end_tile - first_tile, [&](size_t i) {
    const TileRows tile(parts, first_tile + i, first_row, out);
    if (!tile.any() || DecodeTileCpu(parts, tile)) return;
    Fail("{}: tile {} does not end where it should; the file is damaged, fetch it again", parts.codes_name,
         first_tile + i);
  });
}

void Decode(const std::variant<FixedParts, EntropyParts>& parts, size_t first_row, MatrixView<float> out) {
  std::visit([&](const auto& of_coding) { Decode(of_coding, first_row, out); }, parts);
}

}  // namespace mica
