#include <memory>

#include "base/output.h"
#include "cli/commands.h"
#include "cli/experiment_command.h"
#include "record/options.h"

namespace mica {
Subcommand RunCommand() {
  auto options = std::make_shared<ExperimentOptions>();
  auto given = std::make_shared<Json>(Json::object());
  return {.name = "run",
          .help =
              "Run an experiment: measure, compress, measure the packed file, compare; the same command "
              "goes on after a stop",
          .arguments = {{"experiment", &options->experiment, "Experiment file (JSON)"}},
          .flags = {{RunOptionTable(), given.get()}, CommonFlags(options->common)},
          .run = [options, given] {
            const Experiment experiment = OpenExperiment(*options);
            RefuseSweep(experiment);
            if (ValueOf(*given, FindOption(RunOptionTable(), "check")))
              return ShowCheck(experiment, CheckExperiment(experiment), options->common.json);
            const Comparison comparison = RunExperiment(experiment, options->common.json);
            if (options->common.json) WriteStdout(JsonText(ComparisonJson(comparison)));
          }};
}

}  // namespace mica
