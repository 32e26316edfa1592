// All options of a solution in steps together, and the plan and the solution of a matrix that shares its
// input with no other.
#pragma once

#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "compress/entropy/solver.h"
#include "compress/inform/steps.h"
#include "ops/trellis/step_chooser.h"

namespace mica {

struct StepOptions : StepSettings, StepPrices {
  double damping = 0.01;  // of h
};

// Weights all count alike, so that columns come by falling [H^-1]_jj and the signal is tr(H) tr(G).
inline StepPlan PlanOf(MatrixView<const float> h, const OutputInformation& outputs,
                       const StepOptions& settings = {}) {
  const DampedFactor natural(h, {}, settings.damping);
  const auto order = ProcessingOrder(natural.InverseDiagonal(), std::vector<double>(h.rows, 1.0));
  double trace = 0;
  for (size_t j = 0; j < h.rows; ++j) trace += h(j, j);
  const double total = std::accumulate(outputs.fisher.begin(), outputs.fisher.end(), 0.0);
  auto factor = std::make_shared<const DampedFactor>(h, order, settings.damping);
  StepPlan plan = PlanRowSteps(outputs, trace * total, settings);
  plan.columns = std::make_shared<const ColumnSteps>(PlanColumns(std::move(factor)));
  return plan;
}

inline EntropyMatrix SolveSteps(MatrixView<const float> w, const StepPlan& plan, double log2_c,
                                const StepPrices& prices, StepReport* report,
                                MatrixView<float> weights = {}) {
  StepSolution solution = std::move(SolveSteps({{w, &plan, weights}}, log2_c, prices)[0]);
  if (report != nullptr) *report = solution.report;
  return std::move(solution.matrix);
}

}  // namespace mica
