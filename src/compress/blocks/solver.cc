#include "compress/blocks/solver.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "device/array.h"
#include "device/group.h"
#include "format/gguf/encode.h"
#include "ops/feedback/stored.h"
#include "ops/linalg/arrange.h"
#include "ops/linalg/linalg.h"
#include "ops/transpose/transpose.h"

namespace mica {
namespace {

// By row on the processor what is stored by column.
template <typename T>
Matrix<T> ByRow(const Array& array) {
  if (array.empty()) return {};
  Matrix<T> matrix(array.cols(), array.rows());
  IntegersByRow(array.view(), {reinterpret_cast<std::byte*>(matrix.data()), matrix.rows(), matrix.cols(),
                               matrix.cols(), array.dtype(), Device::Cpu()});
  return matrix;
}

template <typename T>
const T* RowOf(const Matrix<T>& matrix, size_t r) {
  return matrix.empty() ? nullptr : matrix.row(r);
}

bool IsNatural(const std::vector<uint32_t>& order) {
  for (size_t p = 0; p < order.size(); ++p) {
    if (order[p] != p) return false;
  }
  return true;
}

// An array of all parts, by row of the matrix.
template <typename T>
Matrix<T> Gathered(const std::vector<BlockSolution::Part>& parts, size_t rows, Array BlockState::* array) {
  Matrix<T> all;
  for (const BlockSolution::Part& part : parts) {
    Matrix<T> own = ByRow<T>(part.state.*array);
    if (parts.size() == 1) return own;
    if (all.empty()) all = Matrix<T>(rows, own.cols());
    for (size_t r = 0; r < own.rows(); ++r) std::copy_n(own.row(r), own.cols(), all.row(part.rows[r]));
  }
  return all;
}

// In how many stripes the rows of a matrix are solved, one after the other. On a processor rows are work, of which a
// stripe has enough for its threads. On a CUDA device all rows are solved at once, and a stripe takes about as long as
// all would: only small matrices are worth it.
size_t Stripes(Device device, size_t rows, size_t cols) {
  constexpr size_t kRowsOfStripe = 64, kMost = 16, kMostWeightsOnCuda = size_t{4} << 20;
  if (device.is_cuda() && rows * cols > kMostWeightsOnCuda) return 1;
  return std::clamp<size_t>(rows / kRowsOfStripe, 1, kMost);
}

// Consecutive positions of one block of outputs, all of one stripe.
struct Piece {
  size_t first, count;
  size_t before;  // positions of the block in front of them
  bool last;      // whether it has none behind them
};
std::vector<Piece> PiecesOf(size_t stripe, size_t stripes, size_t rows, size_t block) {
  std::vector<Piece> pieces;
  for (size_t start = 0; start < rows; start += block) {
    const size_t size = std::min(block, rows - start);
    const Part part = PartOf(size, stripe, stripes);
    if (part.count > 0) pieces.push_back({start + part.first, part.count, part.first, part.first + part.count == size});
  }
  return pieces;
}

// Sums over stripes.
class Reports {
 public:
  void Add(const SolverReport& report) {
    if (report.relative_error > 0) energy_ += report.measured_loss / report.relative_error;
    const SolverReport before = std::exchange(sum_, report);
    sum_.feedback_loss += before.feedback_loss;
    sum_.predicted_loss += before.predicted_loss;
    sum_.measured_loss += before.measured_loss;
  }
  SolverReport Sum() const {
    SolverReport sum = sum_;
    sum.relative_error = energy_ > 0 ? sum.measured_loss / energy_ : 0;
    return sum;
  }

 private:
  SolverReport sum_;
  double energy_ = 0;
};

}  // namespace

BlockSolution::BlockSolution(BlockState state) : rows_(state.rows) {
  std::vector<uint32_t> rows(state.rows);
  std::iota(rows.begin(), rows.end(), 0u);
  parts_.push_back({std::move(state), std::move(rows)});
}

BlockSolution::BlockSolution(std::vector<Part> parts) : parts_(std::move(parts)) {
  for (const Part& part : parts_) rows_ += part.rows.size();
}

std::vector<std::byte> BlockSolution::EncodedRows(GgmlType type) const {
  MICA_CHECK(grid().name == GridOf(type).name);
  const GgmlTypeFacts& facts = FactsOf(type);
  const size_t row_bytes = cols() / facts.block_cols * facts.block_bytes;
  std::vector<std::byte> bytes(rows() * row_bytes);
  const bool codebook = grid().levels == LevelKind::kCodebook;
  for (const Part& part : parts_) {
    const BlockState& state = part.state;
    const Matrix<uint8_t> codes = codebook ? Matrix<uint8_t>() : ByRow<uint8_t>(state.codes);
    const Matrix<uint16_t> vectors = codebook ? ByRow<uint16_t>(state.codes) : Matrix<uint16_t>();
    const Matrix<uint8_t> signs = ByRow<uint8_t>(state.signs);
    const Matrix<uint8_t> s = ByRow<uint8_t>(state.s), m = ByRow<uint8_t>(state.m);
    const Matrix<uint16_t> d = ByRow<uint16_t>(state.d), dmin = ByRow<uint16_t>(state.dmin);
    ParallelFor(part.rows.size(), [&](size_t r) {
      BlockRow row;
      row.codes = RowOf(codes, r);
      row.vectors = RowOf(vectors, r);
      row.signs = RowOf(signs, r);
      row.s = RowOf(s, r);
      row.m = RowOf(m, r);
      row.d = reinterpret_cast<const F16*>(RowOf(d, r));
      row.dmin = reinterpret_cast<const F16*>(RowOf(dmin, r));
      EncodeRow(type, row, cols(), std::span(bytes).subspan(part.rows[r] * row_bytes, row_bytes));
    });
  }
  return bytes;
}

Matrix<uint8_t> BlockSolution::Codes() const {
  MICA_CHECK(grid().levels != LevelKind::kCodebook);
  return Gathered<uint8_t>(parts_, rows_, &BlockState::codes);
}

Matrix<uint16_t> BlockSolution::Scales() const { return Gathered<uint16_t>(parts_, rows_, &BlockState::d); }

BlockSolution SolveOnBlocks(ConstTensor w, ConstTensor h, const DampedFactor& factor, const BlockGrid& grid,
                            const BlockSettings& settings, SolverReport* report, Tensor weights) {
  MICA_CHECK(h.rows == w.cols);
  MICA_CHECK(h.cols == w.cols);
  MICA_CHECK(factor.channels() == w.cols);
  MICA_CHECK(h.device == w.device);
  MICA_CHECK(factor.device() == w.device);
  MICA_CHECK(IsNatural(factor.order()));
  if (settings.search_rounds < 0 || settings.refine_passes < 0) {
    Fail("search rounds and refinement passes are {} and {}, expected 0 or more", settings.search_rounds,
         settings.refine_passes);
  }
  CheckFinite(w, "weights");
  CheckFinite(h, "second moments");
  const Device device = w.device;
  BlockState state(grid, w.rows, w.cols, device);
  const auto like_state = [&] { return Array(w.cols, w.rows, DType::kF32, device); };
  Array remaining = like_state(), errors = like_state();

  SolverReport result;
  BlockResidual(state, w, factor.dead(), true, remaining.view());
  result.feedback_loss = result.predicted_loss = FeedBlocks(
      state, factor.tensor(), factor.dead(), settings.search_rounds, remaining.view(), errors.view());
  const Tensor residual = errors.view(), gradient = remaining.view();
  Array moments;
  if (settings.refine_passes > 0 || report != nullptr) moments = Array(w.cols, w.cols, DType::kF32, device);
  if (settings.refine_passes > 0) {
    BlockResidual(state, w, factor.dead(), false, residual);
    factor.DampedMoments(h, moments.view());
    result.predicted_loss += RefineBlocks(state, moments.view(), settings.refine_passes, gradient, residual);
  }
  if (report != nullptr) {
    // Dead channels have no energy in the undamped H, whatever their rows hold.
    factor.UndampedMoments(h, moments.view());
    BlockResidual(state, w, factor.dead(), false, residual);
    result.measured_loss = QuadraticLoss(moments.view(), residual);
    BlockResidual(state, w, factor.dead(), true, residual);
    const double energy = QuadraticLoss(moments.view(), residual);
    result.relative_error = energy > 0 ? result.measured_loss / energy : 0;
    result.dead_channels = factor.dead().size();
    result.damping = factor.share();
    result.damping_doublings = factor.raises();
    *report = result;
  }
  if (weights.data != nullptr) BlockValues(state, weights);
  return BlockSolution(std::move(state));
}

BlockSolution SolveOnBlocks(ConstTensor w, ConstTensor h, const DampedFactor& factor, const RowFeedback& feedback,
                            const BlockGrid& grid, const BlockSettings& settings, SolverReport* report,
                            Tensor weights) {
  const Device device = w.device;
  const size_t rows = w.rows, cols = w.cols, stripes = Stripes(device, rows, cols);
  if (feedback.v.empty() || stripes == 1) return SolveOnBlocks(w, h, factor, grid, settings, report, weights);
  const size_t block = std::min(rows, feedback.v.cols);
  MICA_CHECK(feedback.order.size() == rows);
  MICA_CHECK(feedback.v.rows == rows);
  // By position: what is stored, and A = V^-T (Q - W), of which row p moves what each later row q aims at by V_pq A_p.
  Array stored(rows, cols, DType::kF32, device), a(rows, cols, DType::kF32, device);
  std::vector<BlockSolution::Part> parts;
  Reports reports;
  for (size_t stripe = 0; stripe < stripes; ++stripe) {
    const std::vector<Piece> pieces = PiecesOf(stripe, stripes, rows, block);
    BlockSolution::Part part;
    for (const Piece& piece : pieces) {
      for (size_t p = piece.first; p < piece.first + piece.count; ++p) part.rows.push_back(feedback.order[p]);
    }
    if (part.rows.empty()) continue;
    Array aim(part.rows.size(), cols, DType::kF32, device), values(part.rows.size(), cols, DType::kF32, device);
    GatherRows(w, std::vector<int32_t>(part.rows.begin(), part.rows.end()), aim.view());
    size_t at = 0;
    for (const Piece& piece : pieces) {
      if (piece.before > 0) {
        Gemm(true, false, 1.0f, feedback.v.Rows(piece.first - piece.before, piece.before).Cols(piece.before, piece.count),
             std::as_const(a).view().Rows(piece.first - piece.before, piece.before), 1.0f,
             aim.view().Rows(at, piece.count));
      }
      at += piece.count;
    }
    SolverReport of_stripe;
    part.state = SolveOnBlocks(std::as_const(aim).view(), h, factor, grid, settings,
                               report != nullptr ? &of_stripe : nullptr, values.view())
                     .TakeState();
    reports.Add(of_stripe);
    ScaleAndAdd(std::as_const(values).view(), -1.0f, aim.view());  // now Q less what was aimed at
    at = 0;
    for (const Piece& piece : pieces) {
      Copy(std::as_const(values).view().Rows(at, piece.count), stored.view().Rows(piece.first, piece.count));
      if (!piece.last) {
        Array corner(piece.count, piece.count, DType::kF32, device);  // V^-T of the piece
        Transpose(feedback.v.Rows(piece.first, piece.count).Cols(piece.before, piece.count), corner.view());
        InvertLowerTriangle(corner.view());
        Gemm(false, false, 1.0f, std::as_const(corner).view(), std::as_const(aim).view().Rows(at, piece.count), 0.0f,
             a.view().Rows(piece.first, piece.count));
      }
      at += piece.count;
    }
    parts.push_back(std::move(part));
  }
  if (report != nullptr) *report = reports.Sum();
  if (weights.data != nullptr) {
    std::vector<int32_t> position(rows);
    for (size_t p = 0; p < rows; ++p) position[feedback.order[p]] = static_cast<int32_t>(p);
    GatherRows(std::as_const(stored).view(), position, weights);
  }
  return BlockSolution(std::move(parts));
}

bool FeedsRows(Device device, size_t rows, size_t cols) { return Stripes(device, rows, cols) > 1; }

BlockSolution RoundOnBlocks(ConstTensor w, const std::vector<float>& importance, const BlockGrid& grid,
                            Tensor weights) {
  CheckFinite(w, "weights");
  BlockState state(grid, w.rows, w.cols, w.device);
  const Array by_column = Transposed(w);
  RoundBlocks(state, by_column.view(), importance);
  if (weights.data != nullptr) BlockValues(state, weights);
  return BlockSolution(std::move(state));
}

}  // namespace mica
