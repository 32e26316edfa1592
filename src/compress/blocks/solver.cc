#include "compress/blocks/solver.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "device/array.h"
#include "format/gguf/encode.h"
#include "ops/feedback/stored.h"
#include "ops/linalg/arrange.h"
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

}  // namespace

std::vector<std::byte> BlockSolution::EncodedRows(GgmlType type) const {
  MICA_CHECK(grid().name == GridOf(type).name);
  const GgmlTypeFacts& facts = FactsOf(type);
  const size_t row_bytes = cols() / facts.block_cols * facts.block_bytes;
  std::vector<std::byte> bytes(rows() * row_bytes);
  const bool codebook = grid().levels == LevelKind::kCodebook;
  const Matrix<uint8_t> codes = codebook ? Matrix<uint8_t>() : ByRow<uint8_t>(state_.codes);
  const Matrix<uint16_t> vectors = codebook ? ByRow<uint16_t>(state_.codes) : Matrix<uint16_t>();
  const Matrix<uint8_t> signs = ByRow<uint8_t>(state_.signs);
  const Matrix<uint8_t> s = ByRow<uint8_t>(state_.s), m = ByRow<uint8_t>(state_.m);
  const Matrix<uint16_t> d = ByRow<uint16_t>(state_.d), dmin = ByRow<uint16_t>(state_.dmin);
  ParallelFor(rows(), [&](size_t r) {
    BlockRow row;
    row.codes = RowOf(codes, r);
    row.vectors = RowOf(vectors, r);
    row.signs = RowOf(signs, r);
    row.s = RowOf(s, r);
    row.m = RowOf(m, r);
    row.d = reinterpret_cast<const F16*>(RowOf(d, r));
    row.dmin = reinterpret_cast<const F16*>(RowOf(dmin, r));
    EncodeRow(type, row, cols(), std::span(bytes).subspan(r * row_bytes, row_bytes));
  });
  return bytes;
}

Matrix<uint8_t> BlockSolution::Codes() const {
  MICA_CHECK(grid().levels != LevelKind::kCodebook);
  return ByRow<uint8_t>(state_.codes);
}

Matrix<uint16_t> BlockSolution::Scales() const { return ByRow<uint16_t>(state_.d); }

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
