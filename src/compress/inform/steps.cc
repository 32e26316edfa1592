#include "compress/inform/steps.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"
#include "compress/curvature/damped_factor.h"
#include "compress/curvature/output_information.h"
#include "format/entropy/entropy_matrix.h"
#include "ops/census/census.h"

namespace mica {
namespace {

constexpr double kRowKeysPerOctave = 2;
// Exponent of a matrix's weight in the loss where matrices compete: both factors of it are larger where they
// are noisy (docs/experiments.md).
constexpr double kSensitivityExponent = 0.9;

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
  ParallelFor((rows + block - 1) / block, [&](size_t b) {
    const size_t begin = b * block, count = std::min(block, rows - begin);
    std::vector<uint32_t> order(plan.row_order.begin() + static_cast<std::ptrdiff_t>(begin),
                                plan.row_order.begin() + static_cast<std::ptrdiff_t>(begin + count));
    for (uint32_t& row : order) row -= static_cast<uint32_t>(begin);
    // Gradients of few windows are noisier than inputs: no row's count less than a share of the mean.
    Matrix<float> damped(count, count);
    for (size_t r = 0; r < count; ++r) {
      std::copy_n(outputs.moments.row(begin + r), count, damped.row(r));
      damped(r, r) += static_cast<float>(settings.output_damping * mean);
    }
    const DampedFactor factor(damped, std::move(order), 0.0);
    for (size_t p = 0; p < count; ++p) std::copy_n(factor.u().row(p), count, plan.v.row(begin + p));
    for (size_t p = 0; p < count; ++p)
      plan.row_log[plan.row_order[begin + p]] = std::log2(plan.v(begin + p, p));
  });
}

}  // namespace

int StepEighths(double log2_value) { return static_cast<int>(std::lround(kStepResolution * log2_value)); }

std::vector<uint32_t> ProcessingOrder(const std::vector<double>& inverse_diagonal,
                                      const std::vector<double>& use) {
  MICA_CHECK(inverse_diagonal.size() == use.size());
  std::vector<uint32_t> order(use.size());
  std::iota(order.begin(), order.end(), 0u);
  // Products, not quotients: what nobody uses comes first.
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return inverse_diagonal[a] * use[b] > inverse_diagonal[b] * use[a];
  });
  return order;
}

ColumnSteps PlanColumns(std::shared_ptr<const DampedFactor> factor) {
  ColumnSteps steps;
  const size_t cols = factor->channels();
  steps.factor = std::move(factor);
  steps.col_step.resize(cols);
  const std::vector<float> diagonal = steps.factor->Diagonal();
  for (size_t p = 0; p < cols; ++p)
    steps.col_step[steps.order()[p]] = static_cast<int16_t>(StepEighths(std::log2(diagonal[p])));
  return steps;
}

StepPlan PlanRowSteps(const OutputInformation& outputs, double signal, const StepSettings& settings) {
  StepPlan plan;
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
  WeighBySignal(signal, plan);
  return plan;
}

void WeighBySignal(double signal, StepPlan& plan) {
  if (!(signal > 0)) return;
  const auto shift = static_cast<float>(0.5 * (1 - kSensitivityExponent) * std::log2(signal));
  for (float& log : plan.row_log) log += shift;
}

StepSizes MeasureSizes(ConstTensor w, const StepPlan& plan) {
  std::vector<double> col_inverse(w.cols);
  for (size_t c = 0; c < w.cols; ++c)
    col_inverse[c] = std::exp2(-plan.columns->col_step[c] / static_cast<double>(kStepResolution));
  for (const uint32_t p : plan.columns->factor->dead())
    col_inverse[plan.columns->order()[p]] = 0;  // solved as zeros
  const ScaledEnergies energies = MeasureScaled(w, col_inverse, 1e-30);
  StepSizes sizes;
  for (size_t r = 0; r < w.rows; ++r) {
    if (!std::isfinite(energies.row[r]))
      Fail("weights of a matrix of {} x {} are not finite", w.rows, w.cols);
    sizes.row.push_back(static_cast<float>(0.5 * std::log2(energies.row[r]) - plan.row_log[r]));
  }
  for (size_t c = 0; c < w.cols; ++c) {
    sizes.col.push_back(
        static_cast<float>(0.5 * std::log2(std::max(energies.col[c] / static_cast<double>(w.rows), 1e-12))));
  }
  return sizes;
}

}  // namespace mica
