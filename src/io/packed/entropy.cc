#include "io/packed/entropy.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/threads.h"
#include "format/entropy/tile_coder.h"
#include "format/stored_bits.h"

namespace mica {
namespace {

constexpr uint64_t kMaxExtent = uint64_t{1} << 24;
constexpr uint64_t kMaxWeights = uint64_t{1} << 36;

void CheckMatrix(const EntropyMatrix& matrix) {
  MICA_CHECK(matrix.rows > 0 && matrix.cols > 0 &&
             (matrix.states == 1 || matrix.states == 4 || matrix.states == 8));
  MICA_CHECK(matrix.n.rows() == matrix.rows && matrix.n.cols() == matrix.cols);
  MICA_CHECK(matrix.row_step.size() == matrix.rows && matrix.row_class.size() == matrix.rows);
  MICA_CHECK(matrix.col_step.size() == matrix.cols && matrix.col_class.size() == matrix.cols);
  const EntropyTables& tables = matrix.tables;
  MICA_CHECK(!tables.knots[0].empty() && tables.first_knot >= 0 && tables.last_class() < kEntropyClasses);
  MICA_CHECK(matrix.states == 1 ? tables.knots[1].empty() : tables.knots[1].size() == tables.knots[0].size());
  MICA_CHECK(matrix.row_key.empty() || matrix.row_key.size() == matrix.rows);
  MICA_CHECK(matrix.row_resolution == kStepResolution || matrix.row_resolution == kFineStepResolution);
}

template <typename T>
std::vector<std::byte> AsBytes(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <typename T>
std::vector<T> FromBytes(const TensorView& tensor) {
  std::vector<T> values(tensor.data.size() / sizeof(T));
  std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(T));
  return values;
}

class EntropyReader final : public PackedReader {
 public:
  explicit EntropyReader(PackedParts parts);
  StoredBits stored_bits() const override { return bits_; }

 private:
  void DecodeRows(size_t first_row, MatrixView<float> out) const override;

  EntropyMatrix matrix_;  // without its integers
  std::vector<float> col_steps_;
  std::vector<uint32_t> order_;  // stored position -> row
  bool in_order_ = true;
  std::unique_ptr<TileCoder> coder_;
  std::vector<uint64_t> tile_begin_;  // [tiles + 1] bytes
  const TensorView* codes_ = nullptr;
  StoredBits bits_;
};

EntropyReader::EntropyReader(PackedParts parts) {
  name_ = parts.name();
  coding_ = "entropy";
  rows_ = parts.Number("rows", 1, kMaxExtent);
  cols_ = parts.Number("cols", 1, std::min(kMaxExtent, kMaxWeights / rows_));
  matrix_.rows = rows_;
  matrix_.cols = cols_;
  matrix_.states = static_cast<int>(parts.Number("states", 1, 8));
  if (matrix_.states != 1 && matrix_.states != 4 && matrix_.states != 8) {
    Fail("metadata of {}: states is {}, expected 1, 4 or 8", name_, matrix_.states);
  }
  matrix_.row_resolution =
      static_cast<int>(parts.Number("row_resolution", kStepResolution, kFineStepResolution));
  if (matrix_.row_resolution != kStepResolution && matrix_.row_resolution != kFineStepResolution) {
    Fail("metadata of {}: row_resolution is {}, expected {} or {}", name_, matrix_.row_resolution,
         kStepResolution, kFineStepResolution);
  }
  matrix_.tables.first_knot = static_cast<int>(parts.Number("first_knot", 0, kLastFirstKnot));

  const TensorView& tables = parts.AnyPart("tables", DType::kU32);
  const uint64_t quantisers = matrix_.states > 1 ? 2 : 1;
  const uint64_t most = static_cast<uint64_t>(kEntropyKnots - matrix_.tables.first_knot);
  if (tables.shape.size() != 2 || tables.shape[0] != quantisers || tables.shape[1] < 1 ||
      tables.shape[1] > most) {
    Fail("{}: tensor {} has shape {}, expected [{}, 1 to {}]", tables.file, tables.name,
         ShapeText(tables.shape), quantisers, most);
  }
  const std::vector<uint32_t> words = FromBytes<uint32_t>(tables);
  for (size_t i = 0; i < words.size(); ++i) {
    const EntropyKnot knot = UnpackKnot(words[i]);
    if (!IsValid(knot)) {
      Fail("{}: tensor {}: entry {} has frequency {} for zero, expected 1 to {}", tables.file, tables.name, i,
           knot.zero, kMaxZero);
    }
    matrix_.tables.knots[i / tables.shape[1]].push_back(knot);
  }

  const uint64_t tiles = CodedTiles(rows_);
  const TensorView& lengths = *parts.Part("tiles", DType::kU32, {tiles});
  tile_begin_.push_back(0);
  for (const uint32_t length : FromBytes<uint32_t>(lengths))
    tile_begin_.push_back(tile_begin_.back() + length);
  codes_ = parts.Part("codes", DType::kU8, {tile_begin_.back()});
  if (codes_ == nullptr) Fail("{}: tensor {} holds no bytes for {} tiles", lengths.file, lengths.name, tiles);

  const TensorView& side = parts.AnyPart("side", DType::kU8);
  // An integer of the side stream takes at least 0.0014 bit; without this a few bytes could ask for
  // gigabytes.
  if (side.shape.size() != 1 || (2 * rows_ + cols_) / 8192 > side.data.size() ||
      !DecodeSide(side.data, matrix_)) {
    Fail("{}: tensor {} does not hold the steps and classes of {} rows and {} columns; the file is damaged",
         side.file, side.name, rows_, cols_);
  }
  for (const int16_t step : matrix_.col_step) col_steps_.push_back(EntropyStep(step, kStepResolution));
  order_ = StoredRowOrder(matrix_);
  in_order_ = std::is_sorted(order_.begin(), order_.end());
  coder_ = std::make_unique<TileCoder>(matrix_.tables, matrix_.states);
  bits_.codes = 8 * codes_->data.size();
  bits_.scales = 8 * side.data.size();
  bits_.groups = 8 * (tables.data.size() + lengths.data.size());
  tensors_ = parts.used();
}

void EntropyReader::DecodeRows(size_t first_row, MatrixView<float> out) const {
  // Rows in their own order stand in known tiles; otherwise any tile may hold one of them.
  const size_t last_row = first_row + out.rows;
  const size_t first_tile = in_order_ ? first_row / kCodedTileRows : 0;
  const size_t last_position = in_order_ ? last_row : rows_;
  ParallelFor(CodedTiles(last_position) - first_tile, [&](size_t i) {
    const size_t tile = first_tile + i;
    const size_t begin = tile * kCodedTileRows;
    const size_t tile_rows = std::min(kCodedTileRows, rows_ - begin);
    const size_t rows = std::min(tile_rows, last_position - begin);
    const uint32_t* order = order_.data() + begin;
    const auto stream = codes_->data.subspan(tile_begin_[tile], tile_begin_[tile + 1] - tile_begin_[tile]);
    const auto row_class = [&](size_t p) { return int{matrix_.row_class[order[p]]}; };
    const auto write_row = [&](size_t p, std::span<const int32_t> levels) {
      const size_t r = order[p];
      if (r < first_row || r >= last_row) return;
      const float row_step = EntropyStep(matrix_.row_step[r], matrix_.row_resolution);
      float* weights = out.row(r - first_row);
      for (size_t c = 0; c < levels.size(); ++c)
        weights[c] = static_cast<float>(levels[c]) * (row_step * col_steps_[c]);
    };
    if (!coder_->Decode(stream, rows, rows == tile_rows, row_class, matrix_.col_class, write_row)) {
      Fail("{}: tensor {}: tile {} does not end where it should; the file is damaged, fetch it again",
           codes_->file, codes_->name, tile);
    }
  });
}

}  // namespace

std::vector<PackedTensor> PackEntropy(const std::string& name, const EntropyMatrix& matrix) {
  CheckMatrix(matrix);
  const TileCoder coder(matrix.tables, matrix.states);
  const std::vector<uint32_t> order = StoredRowOrder(matrix);
  std::vector<std::vector<std::byte>> streams(CodedTiles(matrix.rows));
  ParallelFor(streams.size(), [&](size_t tile) { streams[tile] = coder.Encode(matrix, order, tile); });
  std::vector<std::byte> codes;
  std::vector<uint32_t> lengths;
  for (std::vector<std::byte>& stream : streams) {
    lengths.push_back(static_cast<uint32_t>(stream.size()));
    codes.insert(codes.end(), stream.begin(), stream.end());
    stream = {};
  }
  std::vector<uint32_t> knots;
  for (const std::vector<EntropyKnot>& of_quantiser : matrix.tables.knots) {
    for (const EntropyKnot& knot : of_quantiser) knots.push_back(PackKnot(knot));
  }
  std::vector<std::byte> side = EncodeSide(matrix);

  std::vector<PackedTensor> tensors;
  const auto add = [&](const char* part, DType dtype, std::vector<uint64_t> shape,
                       std::vector<std::byte> bytes) {
    tensors.push_back({{name + "." + part, dtype, std::move(shape)}, std::move(bytes)});
  };
  const uint64_t code_bytes = codes.size(), side_bytes = side.size();
  add("codes", DType::kU8, {code_bytes}, std::move(codes));
  add("tiles", DType::kU32, {lengths.size()}, AsBytes(lengths));
  add("tables", DType::kU32,
      {static_cast<uint64_t>(matrix.tables.quantisers()), matrix.tables.knots[0].size()}, AsBytes(knots));
  add("side", DType::kU8, {side_bytes}, std::move(side));
  return tensors;
}

Json EntropyFacts(const EntropyMatrix& matrix) {
  return {{"coding", "entropy"},
          {"rows", matrix.rows},
          {"cols", matrix.cols},
          {"states", matrix.states},
          {"row_resolution", matrix.row_resolution},
          {"first_knot", matrix.tables.first_knot}};
}

std::unique_ptr<PackedReader> OpenEntropy(PackedParts parts) {
  return std::make_unique<EntropyReader>(std::move(parts));
}

}  // namespace mica
