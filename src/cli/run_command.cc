#include "cli/commands.h"
#include "cli/experiment_command.h"

namespace mica {

Subcommand RunCommand() {
  return ExperimentCommand(
      "run",
      "Run an experiment: measure, compress, measure the packed file, compare; the same command "
      "goes on after a stop",
      "Experiment file (JSON)", [](const Experiment& experiment, bool quiet) {
        return ComparisonJson(RunExperiment(experiment, quiet));
      });
}

}  // namespace mica
