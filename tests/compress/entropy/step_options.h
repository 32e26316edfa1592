// All options of a solution in steps together, and the plan of a matrix that shares its input with no other.
#pragma once

#include <memory>

#include "compress/inform/steps.h"
#include "ops/trellis/step_chooser.h"

namespace mica {

struct StepOptions : StepSettings, StepPrices {};

inline StepPlan PlanOf(MatrixView<const float> h, const OutputInformation& outputs,
                       const StepSettings& settings = {}) {
  return PlanSteps(std::make_shared<const ColumnSteps>(PlanColumns(h, settings)), outputs, settings);
}

}  // namespace mica
