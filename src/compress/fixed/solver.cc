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
#include "ops/feedback/solver_state.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

// The least power of two that no weight exceeds, as an exponent: scales have a narrow range of their own.
// FP16 values have a wide one and stay as they are.
int ExponentOf(MatrixView<const float> w, const std::vector<ScaleGroup>& groups) {
  if (std::none_of(groups.begin(), groups.end(), [](const ScaleGroup& g) { return g.scale_row >= 0; }))
    return 0;
  std::vector<float> largest(w.rows, 0.0f);
  ParallelFor(w.rows, [&](size_t r) {
    for (size_t c = 0; c < w.cols; ++c) largest[r] = std::max(largest[r], std::abs(w(r, c)));
  });
  const float most = largest.empty() ? 0.0f : *std::max_element(largest.begin(), largest.end());
  if (!(most > 0)) return 0;
  if (!(most <= std::ldexp(1.0f, kMaxExponent)))
    Fail("weights reach {:.3g}, beyond the 2^{} that scales can hold; check the model", most, kMaxExponent);
  return std::clamp(static_cast<int>(std::ceil(std::log2(most))), -kMaxExponent, kMaxExponent);
}

// [cols] by stored position: 1 / U_pp^2 to the power `exponent`, the damped energy to the rest.
std::vector<float> Saliency(const DampedFactor& factor, MatrixView<const float> h, double exponent) {
  std::vector<float> saliency(factor.order().size());
  for (size_t p = 0; p < saliency.size(); ++p) {
    const double energy = h(factor.order()[p], factor.order()[p]);
    const double damped = energy > 0 ? energy * (1 + factor.share()) : 0;
    const double u = factor.u()(p, p);
    saliency[p] = energy > 0
                      ? static_cast<float>(std::pow(1.0 / (u * u), exponent) * std::pow(damped, 1 - exponent))
                      : 0;
  }
  return saliency;
}

// The value that stored position p holds in each row of a tile, times `unit`.
void DecodeColumn(const SolverState& state, const ScaleGroup& group, size_t p, size_t r0, size_t count,
                  float* out, float unit = 1.0f) {
  for (size_t r = 0; r < count; ++r) {
    const uint16_t code = state.codes(p, r0 + r);
    const bool kept = group.bits != 0 && (!state.masked() || state.keep(p, r0 + r) != 0);
    if (!kept) {
      out[r] = 0;
    } else if (group.scale_row < 0) {
      out[r] = ToFloat(F16{code}) * unit;
    } else {
      const auto row = static_cast<size_t>(group.scale_row);
      out[r] = GridValue(code, ToFloat(state.scales(row, r0 + r)) * unit, state.zeros(row, r0 + r));
    }
  }
}

// out [cols, rows] = W - Q (or W alone when `whole`) in stored order and in units of 2^state.exponent;
// weights of dead channels count as zero.
void Residual(const SolverState& state, MatrixView<const float> w,
              const std::vector<uint32_t>& dead_positions, bool whole, Matrix<float>& out) {
  std::vector<uint8_t> dead(state.cols, 0);
  for (const uint32_t p : dead_positions) dead[p] = 1;
  const float inverse_unit = std::ldexp(1.0f, -state.exponent);
  ParallelFor(state.tiles(), [&](size_t tile) {
    const size_t r0 = tile * kTileRows, count = state.tile_rows(tile);
    float stored[kTileRows] = {};
    for (const ScaleGroup& group : state.plan.groups) {
      for (size_t p = group.start; p < group.start + group.count; ++p) {
        if (!whole) DecodeColumn(state, group, p, r0, count, stored);
        for (size_t r = 0; r < count; ++r) {
          const float value = dead[p] != 0 ? 0.0f : w(r0 + r, state.plan.order[p]) * inverse_unit;
          out(p, r0 + r) = value - stored[r];
        }
      }
    }
  });
}

// tr(d^T H d) = sum over row blocks I of d_I . (H_II d_I + 2 H_I,>I d_>I): half the products, as H is
// symmetric. d: [cols, rows].
double QuadraticLoss(MatrixView<const float> h, const Matrix<float>& d) {
  constexpr size_t kRows = 256;
  Matrix<float> product(std::min(kRows, d.rows()), d.cols());
  double loss = 0;
  for (size_t start = 0; start < d.rows(); start += kRows) {
    const size_t count = std::min(kRows, d.rows() - start), rest = start + count;
    const MatrixView<float> out = product.view().Rows(0, count);
    Gemm(false, false, 1.0f, h.Rows(start, count).Cols(start, count), d.view().Rows(start, count), 0.0f, out);
    if (rest < d.rows()) {
      Gemm(false, false, 2.0f, h.Rows(start, count).Cols(rest, d.rows() - rest),
           d.view().Rows(rest, d.rows() - rest), 1.0f, out);
    }
    std::vector<double> parts(count);
    ParallelFor(count, [&](size_t i) {
      const float* a = d.row(start + i);
      const float* b = out.row(i);
      double sum = 0;
      for (size_t r = 0; r < d.cols(); ++r) sum += double{a[r]} * b[r];
      parts[i] = sum;
    });
    for (const double part : parts) loss += part;
  }
  return loss;
}

// out [rows, cols], original order = what is stored, as a reader gets it.
void StoreWeights(const SolverState& state, MatrixView<float> out) {
  const float unit = std::ldexp(1.0f, state.exponent);
  ParallelFor(state.tiles(), [&](size_t tile) {
    const size_t r0 = tile * kTileRows, count = state.tile_rows(tile);
    float stored[kTileRows] = {};
    for (const ScaleGroup& group : state.plan.groups) {
      for (size_t p = group.start; p < group.start + group.count; ++p) {
        DecodeColumn(state, group, p, r0, count, stored, unit);
        for (size_t r = 0; r < count; ++r) out(r0 + r, state.plan.order[p]) = stored[r];
      }
    }
  });
}

FixedMatrix Assemble(SolverState& state, size_t group_size) {
  FixedMatrix matrix;
  matrix.rows = state.rows;
  matrix.cols = state.cols;
  matrix.group_size = group_size;
  matrix.order = state.plan.order;
  matrix.widths = state.plan.widths;
  matrix.mask = state.plan.mask;
  matrix.exponent = state.exponent;
  matrix.codes = Matrix<uint16_t>(state.rows, state.cols);
  if (state.masked()) matrix.keep = Matrix<uint8_t>(state.rows, state.cols);
  ParallelFor(state.tiles(), [&](size_t tile) {
    for (size_t p = 0; p < state.cols; ++p) {
      for (size_t r = tile * kTileRows; r < tile * kTileRows + state.tile_rows(tile); ++r) {
        matrix.codes(r, p) = state.codes(p, r);
        if (state.masked()) matrix.keep(r, p) = state.keep(p, r);
      }
    }
  });
  matrix.scales = std::move(state.scales);
  matrix.zeros = std::move(state.zeros);
  return matrix;
}

size_t ScaleRows(const std::vector<ScaleGroup>& groups) {
  size_t count = 0;
  for (const ScaleGroup& group : groups) count += group.scale_row >= 0;
  return count;
}

void AllocateScales(SolverState& state) {
  state.scales = Matrix<ScaleCode>(ScaleRows(state.plan.groups), state.rows);
  state.zeros = Matrix<uint8_t>(ScaleRows(state.plan.groups), state.rows);
}

uint64_t CountZeros(const SolverState& state) {
  std::vector<uint64_t> zeros(state.tiles(), 0);
  ParallelFor(state.tiles(), [&](size_t tile) {
    float value[kTileRows];
    for (const ScaleGroup& group : state.plan.groups) {
      for (size_t p = group.start; p < group.start + group.count; ++p) {
        DecodeColumn(state, group, p, tile * kTileRows, state.tile_rows(tile), value);
        zeros[tile] += static_cast<uint64_t>(std::count(value, value + state.tile_rows(tile), 0.0f));
      }
    }
  });
  uint64_t total = 0;
  for (const uint64_t part : zeros) total += part;
  return total;
}

// SolveFixed for columns of one size.
FixedMatrix SolveAlike(MatrixView<const float> w, MatrixView<const float> h, const DampedFactor& shared,
                       const std::vector<uint8_t>& widths, const FixedSolverSettings& settings,
                       SolverReport* report, MatrixView<float> weights) {
  MICA_CHECK(h.rows == w.cols);
  MICA_CHECK(h.cols == w.cols);
  MICA_CHECK(widths.size() == w.cols);
  if (settings.search_rounds < 0 || settings.refine_passes < 0) {
    Fail("search rounds and refinement passes are {} and {}, expected 0 or more", settings.search_rounds,
         settings.refine_passes);
  }
  CheckFinite(w, "weights");
  CheckFinite(h, "second moments");
  CheckFitsHalf(w, "weights", widths);
  MICA_CHECK(shared.channels() == w.cols);

  SolverState state;
  state.rows = w.rows;
  state.cols = w.cols;
  state.plan = MakePlan(w.rows, shared.order(), widths, settings);
  state.exponent = ExponentOf(w, state.plan.groups);
  AllocateScales(state);
  state.codes = Matrix<uint16_t>(w.cols, w.rows);
  if (state.masked()) {
    state.keep = Matrix<uint8_t>(w.cols, w.rows, 0);
    std::fill_n(state.keep.data(), state.plan.coded * w.rows, uint8_t{1});
  }
  Matrix<float> remaining(w.cols, w.rows), errors(w.cols, w.rows);

  SolverReport result;
  std::optional<DampedFactor> own;
  if (state.plan.order != shared.order()) own.emplace(h, state.plan.order, shared.share());
  const DampedFactor& factor = own ? *own : shared;
  Residual(state, w, factor.dead(), true, remaining);
  const FeedbackSettings feedback{Saliency(factor, h, settings.saliency_exponent), settings.row_importance,
                                  settings.search_rounds};
  result.feedback_loss = result.predicted_loss = FeedAll(state, factor.u(), feedback, remaining, errors);
  // The memory of what is done with, for what comes: H, W - Q, H (W - Q).
  Matrix<float> moments = own ? own->Release() : Matrix<float>(w.cols, w.cols);
  Matrix<float> residual = std::move(errors), gradient = std::move(remaining);
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
  if (weights.data != nullptr) StoreWeights(state, weights);
  return Assemble(state, settings.group_size);
}

// 2^sign e_j of every column.
std::vector<float> Powers(const std::vector<int8_t>& exponents, int sign) {
  std::vector<float> powers;
  for (const int8_t exponent : exponents) powers.push_back(std::ldexp(1.0f, sign * exponent));
  return powers;
}

// m, its columns times `col` and its rows times `row` (empty: 1).
Matrix<float> Scaled(MatrixView<const float> m, const std::vector<float>& row,
                     const std::vector<float>& col) {
  Matrix<float> scaled(m.rows, m.cols);
  ParallelFor(m.rows, [&](size_t r) {
    for (size_t c = 0; c < m.cols; ++c) scaled(r, c) = m(r, c) * col[c] * (row.empty() ? 1.0f : row[r]);
  });
  return scaled;
}

std::vector<int8_t> InStoredOrder(const std::vector<int8_t>& exponents, const std::vector<uint32_t>& order) {
  std::vector<int8_t> stored;
  for (const uint32_t column : order) stored.push_back(exponents[column]);
  return stored;
}

}  // namespace

FixedMatrix SolveFixed(MatrixView<const float> w, MatrixView<const float> h, const DampedFactor& factor,
                       const std::vector<uint8_t>& widths, const FixedSolverSettings& settings,
                       SolverReport* report, MatrixView<float> weights) {
  if (settings.col_exponents.empty()) return SolveAlike(w, h, factor, widths, settings, report, weights);
  MICA_CHECK(settings.col_exponents.size() == w.cols);
  // The same problem with weights and inputs in units in which the columns are alike.
  const std::vector<float> up = Powers(settings.col_exponents, 1), down = Powers(settings.col_exponents, -1);
  const Matrix<float> alike = Scaled(w, {}, down), moments = Scaled(h, up, up);
  const DampedFactor of_moments(moments, factor.order(), factor.share());
  FixedMatrix matrix = SolveAlike(alike, moments, of_moments, widths, settings, report, weights);
  matrix.col_exponents = InStoredOrder(settings.col_exponents, matrix.order);
  if (weights.data != nullptr) {
    ParallelFor(weights.rows, [&](size_t r) {
      for (size_t c = 0; c < weights.cols; ++c) weights(r, c) *= up[c];
    });
  }
  return matrix;
}

FixedMatrix RoundToNearest(MatrixView<const float> weights, int bits, size_t group_size) {
  CheckFinite(weights, "weights");
  const std::vector<int8_t> exponents = ColumnExponents(weights);
  Matrix<float> alike;
  if (!exponents.empty()) alike = Scaled(weights, {}, Powers(exponents, -1));
  const MatrixView<const float> w = exponents.empty() ? weights : alike.view();
  SolverState state;
  state.rows = w.rows;
  state.cols = w.cols;
  state.plan.order.resize(w.cols);
  for (uint32_t j = 0; j < w.cols; ++j) state.plan.order[j] = j;
  state.plan.widths.assign(w.cols, static_cast<uint8_t>(bits));
  state.plan.groups = ScaleGroups(state.plan.widths, group_size);
  if (bits == 0) Fail("width is 0, expected 2, 3, 4, 6, 8 or 16 for rounding to nearest");
  AllocateScales(state);
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
  matrix.scales = std::move(state.scales);
  matrix.zeros = std::move(state.zeros);
  matrix.col_exponents = exponents;
  return matrix;
}

}  // namespace mica
