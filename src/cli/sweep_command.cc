#include <memory>
#include <vector>

#include "base/output.h"
#include "cli/commands.h"
#include "cli/experiment_command.h"
#include "experiment/sweep/sweep.h"

namespace mica {

Subcommand SweepCommand() {
  auto options = std::make_shared<ExperimentOptions>();
  return {.name = "sweep",
          .help =
              "Run an experiment at every point of its \"sweep\" and show quality against size; the same "
              "command goes on after a stop",
          .arguments = {{"experiment", &options->experiment, "Experiment file (JSON) with a \"sweep\""}},
          .flags = {CommonFlags(options->common)},
          .run = [options] {
            const Experiment experiment = OpenExperiment(*options);
            RunSweep(experiment, options->common.json);
            if (options->common.json) WriteStdout(JsonText(ReadJson(experiment.directory / kSweepFile)));
          }};
}

}  // namespace mica
