#include "cli/experiment_command.h"

#include "base/error.h"
#include "base/output.h"

namespace mica {

Experiment OpenExperiment(ExperimentOptions& options) {
  ApplyCommonOptions(options.common, SeveralRanks::kYes);
  Experiment experiment = ReadExperiment(options.experiment);
  experiment.evaluation.device = experiment.compression.arithmetic.device = options.common.device;
  experiment.evaluation.group = experiment.compression.arithmetic.group = options.common.group;
  return experiment;
}

void ShowCheck(const Experiment& experiment, const ExperimentCheck& check, bool json) {
  WriteStdout(json ? JsonText(ToJson(check)) : CheckText(check));
  if (const size_t wrong = check.Wrong(); wrong > 0)
    Fail("{}: {} of {} checks failed", experiment.name, wrong, check.lines.size());
}

}  // namespace mica
