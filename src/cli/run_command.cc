#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/experiment.h"

namespace mica {
namespace {

struct RunOptions {
  CommonOptions common;
  std::filesystem::path experiment;
};

}  // namespace

void AddRunCommand(CLI::App& app) {
  auto options = std::make_shared<RunOptions>();
  CLI::App& command = *app.add_subcommand("run",
                                          "Run an experiment: measure, compress, measure the packed file, "
                                          "compare; the same command goes on after a stop");
  command.add_option("experiment", options->experiment, "Experiment file (JSON)")->required();
  AddCommonOptions(command, options->common);
  command.callback([options] {
    ApplyCommonOptions(options->common);
    const Json comparison = RunExperiment(ReadExperiment(options->experiment), options->common.json);
    if (options->common.json) fmt::print("{}\n", comparison.dump(2));
  });
}

}  // namespace mica
