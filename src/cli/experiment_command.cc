#include "cli/experiment_command.h"

namespace mica {

Experiment OpenExperiment(ExperimentOptions& options) {
  ApplyCommonOptions(options.common, SeveralRanks::kYes);
  Experiment experiment = ReadExperiment(options.experiment);
  experiment.evaluation.device = experiment.compression.arithmetic.device = options.common.device;
  experiment.evaluation.group = experiment.compression.arithmetic.group = options.common.group;
  return experiment;
}

}  // namespace mica
