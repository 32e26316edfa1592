#include "format/entropy/encode.h"

#include <cstring>
#include <utility>

#include "base/error.h"
#include "format/entropy/side_stream.h"
#include "format/entropy/tables.h"

namespace mica {
namespace {

template <typename T>
std::vector<std::byte> AsBytes(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

}  // namespace

void CheckFrame(const EntropyFrame& matrix) {
  MICA_CHECK(matrix.rows > 0);
  MICA_CHECK(matrix.cols > 0);
  MICA_CHECK(matrix.tile_rows > 0 && matrix.tile_rows <= kMostTileRows);
  MICA_CHECK(matrix.states == 1 || matrix.states == 4 || matrix.states == 8);
  MICA_CHECK(matrix.row_step.size() == matrix.rows);
  MICA_CHECK(matrix.row_class.size() == matrix.rows);
  MICA_CHECK(matrix.col_step.size() == matrix.cols);
  MICA_CHECK(matrix.col_class.size() == matrix.cols);
  const EntropyTables& tables = matrix.tables;
  MICA_CHECK(!tables.knots[0].empty());
  MICA_CHECK(tables.first_knot >= 0);
  MICA_CHECK(tables.last_class() < kEntropyClasses);
  MICA_CHECK(matrix.states == 1 ? tables.knots[1].empty() : tables.knots[1].size() == tables.knots[0].size());
  MICA_CHECK(matrix.row_key.empty() || matrix.row_key.size() == matrix.rows);
  MICA_CHECK(matrix.row_resolution == kStepResolution || matrix.row_resolution == kFineStepResolution);
}

EntropyStreams Joined(std::vector<std::vector<std::byte>> streams) {
  EntropyStreams joined;
  size_t bytes = 0;
  for (const std::vector<std::byte>& stream : streams) bytes += stream.size();
  joined.codes.reserve(bytes);
  for (std::vector<std::byte>& stream : streams) {
    joined.lengths.push_back(static_cast<uint32_t>(stream.size()));
    joined.codes.insert(joined.codes.end(), stream.begin(), stream.end());
    stream = {};
  }
  return joined;
}

PackedMatrix Assemble(const EntropyFrame& matrix, size_t lanes, EntropyStreams streams) {
  MICA_CHECK(streams.lengths.size() == matrix.tiles());
  std::vector<uint32_t> knots;
  for (const std::vector<EntropyKnot>& of_quantiser : matrix.tables.knots) {
    for (const EntropyKnot& knot : of_quantiser) knots.push_back(PackKnot(knot));
  }
  std::vector<std::byte> side = EncodeSide(matrix);

  PackedMatrix packed{EntropyFacts{matrix.rows, matrix.cols, matrix.states, lanes, matrix.tile_rows,
                                   matrix.row_resolution, matrix.tables.first_knot},
                      {}};
  const auto add = [&](PartKind kind, DType dtype, std::vector<uint64_t> shape,
                       std::vector<std::byte> bytes) {
    packed.parts.push_back({kind, dtype, std::move(shape), std::move(bytes)});
  };
  const uint64_t code_bytes = streams.codes.size(), side_bytes = side.size();
  add(PartKind::kCodes, DType::kU8, {code_bytes}, std::move(streams.codes));
  add(PartKind::kTiles, DType::kU32, {streams.lengths.size()}, AsBytes(streams.lengths));
  add(PartKind::kTables, DType::kU32,
      {static_cast<uint64_t>(matrix.tables.quantisers()), matrix.tables.knots[0].size()}, AsBytes(knots));
  add(PartKind::kSide, DType::kU8, {side_bytes}, std::move(side));
  return packed;
}

}  // namespace mica
