#include <memory>
#include <vector>

#include "base/output.h"
#include "cli/commands.h"
#include "cli/experiment_command.h"
#include "experiment/sweep/sweep.h"
#include "record/options.h"

namespace mica {

Subcommand SweepCommand() {
  auto options = std::make_shared<ExperimentOptions>();
  auto given = std::make_shared<Json>(Json::object());
  return {.name = "sweep",
          .help =
              "Run an experiment at every point of its \"sweep\" and show quality against size; the same "
              "command goes on after a stop",
          .arguments = {{"experiment", &options->experiment, "Experiment file (JSON) with a \"sweep\""}},
          .flags = {{RunOptionTable(), given.get()}, CommonFlags(options->common)},
          .run = [options, given] {
            const Experiment experiment = OpenExperiment(*options);
            if (ValueOf(*given, FindOption(RunOptionTable(), "check")))
              return ShowCheck(experiment, CheckSweep(experiment), options->common.json);
            RunSweep(experiment, options->common.json);
            if (options->common.json) WriteStdout(JsonText(ReadJson(experiment.directory / kSweepFile)));
          }};
}

}  // namespace mica
