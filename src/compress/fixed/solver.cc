#include "compress/fixed/solver.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/finite.h"
#include "base/threads.h"
#include "compress/curvature/damped_factor.h"
#include "compress/fixed/plan.h"
#include "compress/inform/column_exponents.h"
#include "device/array.h"
#include "ops/codes/codes.h"
#include "ops/feedback/solver_state.h"
#include "ops/feedback/stored.h"
#include "ops/linalg/arrange.h"

namespace mica {
namespace {

// The least power of two that no weight exceeds, as an exponent: scales have a narrow range of their own.
// FP16 values have a wide one and stay as they are.
int ExponentOf(float most) {
  if (!(most > 0)) return 0;
  if (!(most <= std::ldexp(1.0f, kMaxExponent)))
    Fail("weights reach {:.3g}, beyond the 2^{} that scales can hold; check the model", most, kMaxExponent);
  return std::clamp(static_cast<int>(std::ceil(std::log2(most))), -kMaxExponent, kMaxExponent);
}

int ExponentOf(ConstTensor w, const std::vector<ScaleGroup>& groups) {
  if (std::none_of(groups.begin(), groups.end(), [](const ScaleGroup& g) { return g.scale_row >= 0; }))
    return 0;
  return ExponentOf(LargestMagnitude(w));
}

// CheckFitsHalf of weights on any device.
void CheckFitsWidths(ConstTensor w, const std::vector<uint8_t>& widths) {
  const char* what = "weights";
  if (!w.device.is_cuda()) return CheckFitsHalf(w.host<float>(), what, widths);
  constexpr float kLargestHalf = 65504.0f;
  if (std::find(widths.begin(), widths.end(), 16) == widths.end() || LargestMagnitude(w) <= kLargestHalf)
    return;
  const Array here = CopyTo(Device::Cpu(), w);
  CheckFitsHalf(here.view().host<float>(), what, widths);
}

// [cols] by stored position: 1 / U_pp^2 to the power `exponent`, the damped energy to the rest.
std::vector<float> Saliency(const DampedFactor& factor, ConstTensor h, double exponent) {
  const std::vector<float> energies = DiagonalOf(h), diagonal = factor.Diagonal();
  std::vector<float> saliency(factor.order().size());
  for (size_t p = 0; p < saliency.size(); ++p) {
    const double energy = energies[factor.order()[p]];
    const double damped = energy > 0 ? energy * (1 + factor.share()) : 0;
    const double u = diagonal[p];
    saliency[p] = energy > 0
                      ? static_cast<float>(std::pow(1.0 / (u * u), exponent) * std::pow(damped, 1 - exponent))
                      : 0;
  }
  return saliency;
}

// Integers of the solver as a matrix on the processor; by row what is stored by column.
template <typename T>
Matrix<T> ToHost(const Array& array) {
  Matrix<T> matrix(array.rows(), array.cols());
  Copy(array.view(), {reinterpret_cast<std::byte*>(matrix.data()), matrix.rows(), matrix.cols(),
                      matrix.cols(), array.dtype(), Device::Cpu()});
  return matrix;
}
template <typename T>
Matrix<T> ByRow(const Array& array) {
  Matrix<T> matrix(array.cols(), array.rows());
  IntegersByRow(array.view(), {reinterpret_cast<std::byte*>(matrix.data()), matrix.rows(), matrix.cols(),
                               matrix.cols(), array.dtype(), Device::Cpu()});
  return matrix;
}

// SolveFixedThere for columns of one size.
SolverState SolveAlike(ConstTensor w, ConstTensor h, const DampedFactor& shared,
                       const std::vector<uint8_t>& widths, const FixedSolverSettings& settings,
                       SolverReport* report, Tensor weights) {
  MICA_CHECK(h.rows == w.cols);
  MICA_CHECK(h.cols == w.cols);
  MICA_CHECK(widths.size() == w.cols);
  if (settings.search_rounds < 0 || settings.refine_passes < 0) {
    Fail("search rounds and refinement passes are {} and {}, expected 0 or more", settings.search_rounds,
         settings.refine_passes);
  }
  CheckFinite(w, "weights");
  CheckFinite(h, "second moments");
  CheckFitsWidths(w, widths);
  MICA_CHECK(shared.channels() == w.cols);
  const Device device = w.device;
  MICA_CHECK(h.device == device);
  MICA_CHECK(shared.device() == device);

  SolverState state;
  state.rows = w.rows;
  state.cols = w.cols;
  state.plan = MakePlan(w.rows, shared.order(), widths, settings);
  state.exponent = settings.exponent ? *settings.exponent : ExponentOf(w, state.plan.groups);
  state.Allocate(device);
  const auto like_state = [&] { return Array(w.cols, w.rows, DType::kF32, device); };
  Array remaining = like_state(), errors = like_state();

  SolverReport result;
  std::optional<DampedFactor> own;
  if (state.plan.order != shared.order()) own.emplace(h, state.plan.order, shared.share());
  const DampedFactor& factor = own ? *own : shared;
  Residual(state, w, factor.dead(), true, remaining.view());
  const FeedbackSettings feedback{Saliency(factor, h, settings.saliency_exponent), settings.row_importance,
                                  settings.search_rounds};
  result.feedback_loss = result.predicted_loss =
      FeedAll(state, factor.tensor(), feedback, remaining.view(), errors.view());
  // The memory of what is done with, for what comes: H, W - Q, H (W - Q).
  Matrix<float> released;
  if (own && !device.is_cuda()) released = own->Release();
  Array taken;
  if (released.empty()) taken = Array(w.cols, w.cols, DType::kF32, device);
  const Tensor moments = released.empty() ? taken.view() : Tensor(released);
  const Tensor residual = errors.view(), gradient = remaining.view();
  if (settings.refine_passes > 0) {
    Residual(state, w, factor.dead(), false, residual);
    factor.DampedMoments(h, moments);
    result.predicted_loss += RefineAll(state, moments, settings.refine_passes, residual, gradient, residual);
  }
  if (report != nullptr) {
    // Dead channels have no energy in the undamped H, whatever their rows hold.
    factor.UndampedMoments(h, moments);
    Residual(state, w, factor.dead(), false, residual);
    result.measured_loss = QuadraticLoss(moments, residual);
    Residual(state, w, factor.dead(), true, residual);
    const double energy = QuadraticLoss(moments, residual);
    result.relative_error = energy > 0 ? result.measured_loss / energy : 0;
    result.zero_share = state.rows * state.cols > 0 ? static_cast<double>(CountZeros(state)) /
                                                          static_cast<double>(state.rows * state.cols)
                                                    : 0;
    for (double* loss : {&result.feedback_loss, &result.predicted_loss, &result.measured_loss})
      *loss = std::ldexp(*loss, 2 * state.exponent);
    result.dead_channels = factor.dead().size();
    result.damping = factor.share();
    result.damping_doublings = factor.raises();
    *report = result;
  }
  if (weights.data != nullptr) StoredWeights(state, weights);
  return state;
}

// 2^sign e_j of every column.
std::vector<float> Powers(const std::vector<int8_t>& exponents, int sign) {
  std::vector<float> powers;
  for (const int8_t exponent : exponents) powers.push_back(std::ldexp(1.0f, sign * exponent));
  return powers;
}

// m, its columns times `col` and its rows times `row` (empty: 1).
Array Scaled(ConstTensor m, const std::vector<float>& row, const std::vector<float>& col) {
  Array scaled(m.rows, m.cols, DType::kF32, m.device);
  ScaleRowsAndColumns(m, row, col, scaled.view());
  return scaled;
}

std::vector<int8_t> InStoredOrder(const std::vector<int8_t>& exponents, const std::vector<uint32_t>& order) {
  std::vector<int8_t> stored;
  for (const uint32_t column : order) stored.push_back(exponents[column]);
  return stored;
}

}  // namespace

FixedFrame FixedSolution::Frame() const {
  FixedFrame frame;
  frame.rows = state_.rows;
  frame.cols = state_.cols;
  frame.group_size = group_size_;
  frame.mask = state_.plan.mask;
  frame.exponent = state_.exponent;
  frame.order = state_.plan.order;
  frame.widths = state_.plan.widths;
  frame.col_exponents = col_exponents_;
  return frame;
}

PackedMatrix FixedSolution::Packed() const {
  return Pack(Frame(), {state_.codes.view(), state_.keep.view(), state_.scales.view(), state_.zeros.view()});
}

FixedMatrix FixedSolution::Take() {
  FixedMatrix matrix;
  static_cast<FixedFrame&>(matrix) = Frame();
  matrix.codes = ByRow<uint16_t>(state_.codes);
  if (state_.masked()) matrix.keep = ByRow<uint8_t>(state_.keep);
  matrix.scales = ToHost<ScaleCode>(state_.scales);
  matrix.zeros = ToHost<uint8_t>(state_.zeros);
  *this = FixedSolution();
  return matrix;
}

FixedSolution SolveFixedThere(ConstTensor w, ConstTensor h, const DampedFactor& factor,
                              const std::vector<uint8_t>& widths, const FixedSolverSettings& settings,
                              SolverReport* report, Tensor weights) {
  if (settings.col_exponents.empty())
    return {SolveAlike(w, h, factor, widths, settings, report, weights), settings.group_size, {}};
  MICA_CHECK(settings.col_exponents.size() == w.cols);
  // The same problem with weights and inputs in units in which the columns are alike.
  const std::vector<float> up = Powers(settings.col_exponents, 1), down = Powers(settings.col_exponents, -1);
  const Array alike = Scaled(w, {}, down), moments = Scaled(h, up, up);
  const DampedFactor of_moments(moments.view(), factor.order(), factor.share());
  SolverState state = SolveAlike(alike.view(), moments.view(), of_moments, widths, settings, report, weights);
  if (weights.data != nullptr) ScaleRowsAndColumns(weights, {}, up, weights);
  std::vector<int8_t> exponents = InStoredOrder(settings.col_exponents, state.plan.order);
  return {std::move(state), settings.group_size, std::move(exponents)};
}

FixedMatrix SolveFixed(ConstTensor w, ConstTensor h, const DampedFactor& factor,
                       const std::vector<uint8_t>& widths, const FixedSolverSettings& settings,
                       SolverReport* report, Tensor weights) {
  return SolveFixedThere(w, h, factor, widths, settings, report, weights).Take();
}

namespace {

// Rows behind those that are there, of the same frame.
template <typename T>
void AppendRows(const Matrix<T>& part, size_t first, Matrix<T>& whole) {
  for (size_t r = 0; r < part.rows(); ++r) std::copy_n(part.row(r), part.cols(), whole.row(first + r));
}
template <typename T>
void AppendCols(const Matrix<T>& part, size_t first, Matrix<T>& whole) {
  for (size_t r = 0; r < part.rows(); ++r) std::copy_n(part.row(r), part.cols(), whole.row(r) + first);
}

}  // namespace

PackedMatrix SolveFixedInBlocks(ConstTensor w, ConstTensor h, const DampedFactor& factor,
                                const std::vector<uint8_t>& widths, const FixedSolverSettings& settings,
                                size_t block_rows, SolverReport* report) {
  if (w.rows <= block_rows) return SolveFixedThere(w, h, factor, widths, settings, report).Packed();
  MICA_CHECK(settings.sparsity.rate == 0);
  const std::vector<float> down = Powers(settings.col_exponents, -1);
  const auto blocks = [&](const auto& use) {
    for (size_t first = 0; first < w.rows; first += block_rows)
      use(first, w.Rows(first, std::min(block_rows, w.rows - first)));
  };
  FixedSolverSettings of_block = settings;
  if (!settings.exponent) {
    float most = 0;
    blocks([&](size_t, ConstTensor rows) {
      most = std::max(most, LargestMagnitude(down.empty() ? rows : Scaled(rows, {}, down).view()));
    });
    of_block.exponent = ExponentOf(most);
  }
  FixedMatrix whole;
  SolverReport sums;
  double energy = 0;
  blocks([&](size_t first, ConstTensor rows) {
    SolverReport of_rows;
    FixedMatrix part =
        SolveFixedThere(rows, h, factor, widths, of_block, report != nullptr ? &of_rows : nullptr).Take();
    if (first == 0) {
      static_cast<FixedFrame&>(whole) = part;
      whole.rows = w.rows;
      whole.codes = Matrix<uint16_t>(w.rows, w.cols);
      whole.scales = Matrix<ScaleCode>(part.scales.rows(), w.rows);
      whole.zeros = Matrix<uint8_t>(part.zeros.rows(), w.rows);
    }
    AppendRows(part.codes, first, whole.codes);
    AppendCols(part.scales, first, whole.scales);
    AppendCols(part.zeros, first, whole.zeros);
    const double before_feedback = sums.feedback_loss, before_predicted = sums.predicted_loss,
                 before_measured = sums.measured_loss;
    if (of_rows.relative_error > 0) energy += of_rows.measured_loss / of_rows.relative_error;
    sums = of_rows;
    sums.feedback_loss += before_feedback;
    sums.predicted_loss += before_predicted;
    sums.measured_loss += before_measured;
  });
  sums.relative_error = energy > 0 ? sums.measured_loss / energy : 0;
  if (report != nullptr) *report = sums;
  return Pack(whole);
}

FixedMatrix RoundToNearest(MatrixView<const float> weights, int bits, size_t group_size) {
  CheckFinite(weights, "weights");
  const std::vector<int8_t> exponents = ColumnExponents(weights);
  Array alike;
  if (!exponents.empty()) alike = Scaled(weights, {}, Powers(exponents, -1));
  const MatrixView<const float> w = exponents.empty() ? weights : std::as_const(alike).view().host<float>();
  SolverState state;
  state.rows = w.rows;
  state.cols = w.cols;
  state.plan.order.resize(w.cols);
  for (uint32_t j = 0; j < w.cols; ++j) state.plan.order[j] = j;
  state.plan.widths.assign(w.cols, static_cast<uint8_t>(bits));
  state.plan.groups = ScaleGroups(state.plan.widths, group_size);
  if (bits == 0) Fail("width is 0, expected 2, 3, 4, 6, 8 or 16 for rounding to nearest");
  state.AllocateScales(Device::Cpu());
  state.exponent = ExponentOf(w, state.plan.groups);
  const float inverse_unit = std::ldexp(1.0f, -state.exponent);
  FixedMatrix matrix;
  matrix.rows = w.rows;
  matrix.cols = w.cols;
  matrix.group_size = group_size;
  matrix.exponent = state.exponent;
  matrix.order = state.plan.order;
  matrix.widths = state.plan.widths;
  matrix.codes = Matrix<uint16_t>(w.rows, w.cols);
  const std::vector<float> ones(std::min(group_size, w.cols), 1.0f);
  ParallelFor(state.tiles(), [&](size_t tile) {
    const size_t r0 = tile * kTileRows, rows = state.tile_rows(tile);
    Matrix<float> values(ones.size(), kTileRows, 0.0f);
    TileGrids grids;
    for (const ScaleGroup& group : state.plan.groups) {
      if (group.scale_row >= 0) {
        for (size_t j = 0; j < group.count; ++j) {
          for (size_t r = 0; r < rows; ++r) values(j, r) = w(r0 + r, group.start + j) * inverse_unit;
        }
        FitTileGrids(values.data(), group.count, ones.data(), nullptr, bits, kGridRounds, &grids);
        state.StoreGrids(grids, tile, group);
      }
      for (size_t r = 0; r < rows; ++r) {
        for (size_t p = group.start; p < group.start + group.count; ++p) {
          const float value = w(r0 + r, p) * inverse_unit;
          matrix.codes(r0 + r, p) =
              bits == 16 ? ToF16(std::clamp(value, -65504.0f, 65504.0f)).bits
                         : GridCode(value, grids.scale[r], grids.grid[r].zero, (1 << bits) - 1);
        }
      }
    }
  });
  matrix.scales = ToHost<ScaleCode>(state.scales);
  matrix.zeros = ToHost<uint8_t>(state.zeros);
  matrix.col_exponents = exponents;
  return matrix;
}

}  // namespace mica
