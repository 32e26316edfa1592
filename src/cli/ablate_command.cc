#include "cli/commands.h"
#include "cli/experiment_command.h"
#include "experiment/ablation.h"

namespace mica {

Subcommand AblateCommand() {
  return ExperimentCommand(
      "ablate",
      "Run an experiment once for each way to use information (none, energy, clusters, conditional) at equal "
      "stored bits",
      "Experiment file (JSON) with a budget in bpw",
      [](const Experiment& experiment, bool quiet) { return AblationJson(RunAblation(experiment, quiet)); });
}

}  // namespace mica
