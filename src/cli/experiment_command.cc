#include "cli/experiment_command.h"

#include <filesystem>
#include <memory>

#include "base/output.h"
#include "cli/common_options.h"

namespace mica {
namespace {

struct ExperimentOptions {
  CommonOptions common;
  std::filesystem::path experiment;
};

}  // namespace

Subcommand ExperimentCommand(const std::string& name, const std::string& help, const char* help_of_file,
                             Json (*run)(const Experiment& experiment, bool quiet)) {
  auto options = std::make_shared<ExperimentOptions>();
  return {.name = name,
          .help = help,
          .arguments = {{"experiment", &options->experiment, help_of_file}},
          .flags = {CommonFlags(options->common)},
          .run = [options, run] {
            ApplyCommonOptions(options->common);
            Experiment experiment = ReadExperiment(options->experiment);
            experiment.evaluation.device = experiment.compression.arithmetic.device = options->common.device;
            const Json result = run(experiment, options->common.json);
            if (options->common.json) WriteStdout(JsonText(result));
          }};
}

}  // namespace mica
