#include <memory>

#include "base/output.h"
#include "cli/commands.h"
#include "cli/experiment_command.h"
#include "experiment/ablation.h"

namespace mica {

Subcommand AblateCommand() {
  auto options = std::make_shared<ExperimentOptions>();
  return {.name = "ablate",
          .help =
              "Run an experiment once for each way to use information (none, energy, clusters, "
              "conditional) at equal stored bits",
          .arguments = {{"experiment", &options->experiment, "Experiment file (JSON) with a budget in bpw"}},
          .flags = {CommonFlags(options->common)},
          .run = [options] {
            const Experiment experiment = OpenExperiment(*options);
            const Json result = AblationJson(RunAblation(experiment, options->common.json));
            if (options->common.json) WriteStdout(JsonText(result));
          }};
}

}  // namespace mica
