#include "compress/inform/steps.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "compress/curvature/damped_factor.h"
#include "compress/curvature/output_information.h"
#include "format/entropy/entropy_matrix.h"

namespace mica {
namespace {

constexpr double kRowKeysPerOctave = 2;
// Exponent of a matrix's overall sensitivity tr(H) tr(G): both are larger where they are noisy
// (docs/experiments.md).
constexpr double kSensitivityExponent = 0.9;

// What H and G are damped by until they can be factored. mean: what damping is relative to; `what` names the
// channels in the message.
DampingPolicy StepDamping(double share, double mean, size_t channels, const char* what) {
  return {.share = share,
          .mean = mean,
          .first_raise = 1e-6,
          .least_raise = 1e-6,
          .most_raises = 24,
          .failure = fmt::format("second moments of {} {} are not positive definite at any damping", channels,
                                 what)};
}

void PlanRows(const OutputInformation& outputs, double mean, const StepSettings& settings, StepPlan& plan) {
  const size_t rows = outputs.fisher.size(), block = outputs.moments.cols();
  MICA_CHECK(outputs.moments.rows() == rows);
  plan.row_key.resize(rows);
  for (size_t r = 0; r < rows; ++r) {
    const double relative = std::max(outputs.fisher[r] / mean, 1e-12);
    // Blocks stay apart: no two of them share a key.
    constexpr int kKeysPerBlock = 64;
    const int key = static_cast<int>(std::lround(kRowKeysPerOctave * std::log2(relative)));
    plan.row_key[r] = static_cast<int16_t>(kKeysPerBlock * static_cast<int>(r / block) +
                                           std::clamp(key, -kKeysPerBlock / 2, kKeysPerBlock / 2 - 1));
  }
  std::stable_sort(plan.row_order.begin(), plan.row_order.end(),
                   [&](uint32_t a, uint32_t b) { return plan.row_key[a] < plan.row_key[b]; });
  plan.v = Matrix<float>(rows, block);
  for (size_t begin = 0; begin < rows; begin += block) {
    const size_t count = std::min(block, rows - begin);
    std::vector<uint32_t> order(plan.row_order.begin() + static_cast<std::ptrdiff_t>(begin),
                                plan.row_order.begin() + static_cast<std::ptrdiff_t>(begin + count));
    for (uint32_t& row : order) row -= static_cast<uint32_t>(begin);
    const DampedFactor factor(outputs.moments.view().Rows(begin, count).Cols(0, count), std::move(order),
                              FactorForm::kUpperOfInverse,
                              StepDamping(settings.output_damping, mean, count, "outputs"));
    for (size_t p = 0; p < count; ++p) std::copy_n(factor.matrix().row(p), count, plan.v.row(begin + p));
    for (size_t p = 0; p < count; ++p)
      plan.row_log[plan.row_order[begin + p]] = std::log2(plan.v(begin + p, p));
  }
}

}  // namespace

int StepEighths(double log2_value) { return static_cast<int>(std::lround(kStepResolution * log2_value)); }

ColumnSteps PlanColumns(MatrixView<const float> h, const StepSettings& settings) {
  const size_t cols = h.rows;
  const double mean = MeanEnergy(h);
  ColumnSteps steps;
  for (size_t j = 0; j < cols; ++j) steps.trace += h(j, j);
  if (!std::isfinite(steps.trace)) {
    Fail("second moments of {} input channels are not finite; the calibration activations overflow", cols);
  }
  const DampedFactor natural(h, {}, FactorForm::kUpperOfInverse,
                             StepDamping(settings.damping, mean, cols, "input channels"));
  steps.dead_channels = natural.dead().size();
  steps.damping_doublings = natural.raises();
  // [H^-1]_jj is the squared norm of column j of the factor, whatever the order.
  std::vector<double> inverse_diagonal(cols, 0.0);
  for (size_t i = 0; i < cols; ++i) {
    const float* u = natural.matrix().row(i);
    for (size_t j = i; j < cols; ++j) inverse_diagonal[j] += static_cast<double>(u[j]) * u[j];
  }
  steps.order = natural.order();
  std::stable_sort(steps.order.begin(), steps.order.end(),
                   [&](uint32_t a, uint32_t b) { return inverse_diagonal[a] > inverse_diagonal[b]; });
  DampedFactor ordered(
      h, steps.order, FactorForm::kUpperOfInverse,
      StepDamping(settings.damping * std::exp2(natural.raises()), mean, cols, "input channels"));
  steps.u = ordered.Release();
  steps.col_step.resize(cols);
  for (size_t p = 0; p < cols; ++p)
    steps.col_step[steps.order[p]] = static_cast<int16_t>(StepEighths(std::log2(steps.u(p, p))));
  return steps;
}

StepPlan PlanSteps(std::shared_ptr<const ColumnSteps> columns, const OutputInformation& outputs,
                   const StepSettings& settings) {
  StepPlan plan;
  const double trace = columns->trace;
  plan.columns = std::move(columns);
  const std::vector<double>& fisher = outputs.fisher;
  const size_t rows = fisher.size();
  plan.row_order.resize(rows);
  std::iota(plan.row_order.begin(), plan.row_order.end(), 0u);
  plan.row_log.assign(rows, 0.0f);
  const double total = std::accumulate(fisher.begin(), fisher.end(), 0.0);
  if (!(total > 0)) return plan;
  const double mean = total / static_cast<double>(rows);
  if (!outputs.moments.empty()) {
    PlanRows(outputs, mean, settings, plan);
  } else {
    for (size_t r = 0; r < rows; ++r) {
      const double f = (fisher[r] + settings.fisher_damping * mean) / (1 + settings.fisher_damping);
      plan.row_log[r] = static_cast<float>(-0.5 * std::log2(f));
    }
  }
  if (trace > 0) {
    const auto shift = static_cast<float>(0.5 * (1 - kSensitivityExponent) * std::log2(trace * total));
    for (float& log : plan.row_log) log += shift;
  }
  return plan;
}

StepSizes MeasureSizes(MatrixView<const float> w, const StepPlan& plan) {
  StepSizes sizes;
  std::vector<double> row_energy(w.rows, 0.0), col_energy(w.cols, 0.0), col_inverse(w.cols);
  for (size_t c = 0; c < w.cols; ++c)
    col_inverse[c] = std::exp2(-plan.columns->col_step[c] / static_cast<double>(kStepResolution));
  for (size_t r = 0; r < w.rows; ++r) {
    for (size_t c = 0; c < w.cols; ++c) {
      const double x = w(r, c) * col_inverse[c];
      row_energy[r] += x * x;
    }
    if (!std::isfinite(row_energy[r])) Fail("weights of a matrix of {} x {} are not finite", w.rows, w.cols);
    row_energy[r] = std::max(row_energy[r] / static_cast<double>(w.cols), 1e-30);
    sizes.row.push_back(static_cast<float>(0.5 * std::log2(row_energy[r]) - plan.row_log[r]));
  }
  for (size_t r = 0; r < w.rows; ++r) {
    for (size_t c = 0; c < w.cols; ++c) {
      const double x = w(r, c) * col_inverse[c];
      col_energy[c] += x * x / row_energy[r];
    }
  }
  for (size_t c = 0; c < w.cols; ++c) {
    sizes.col.push_back(
        static_cast<float>(0.5 * std::log2(std::max(col_energy[c] / static_cast<double>(w.rows), 1e-12))));
  }
  return sizes;
}

}  // namespace mica
