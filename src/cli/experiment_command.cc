#include "cli/experiment_command.h"

namespace mica {

Experiment OpenExperiment(ExperimentOptions& options) {
  ApplyCommonOptions(options.common);
  Experiment experiment = ReadExperiment(options.experiment);
  experiment.evaluation.device = experiment.compression.arithmetic.device = options.common.device;
  return experiment;
}

}  // namespace mica
