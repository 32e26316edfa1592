#include <filesystem>
#include <memory>

#include "cli/ablation.h"
#include "cli/commands.h"
#include "cli/common_options.h"

namespace mica {
namespace {

struct AblateOptions {
  CommonOptions common;
  std::filesystem::path experiment;
};

}  // namespace

void AddAblateCommand(CLI::App& app) {
  auto options = std::make_shared<AblateOptions>();
  CLI::App& command = *app.add_subcommand("ablate",
                                          "Run an experiment once for each way to use information (none, "
                                          "energy, clusters, conditional) at equal stored bits");
  command.add_option("experiment", options->experiment, "Experiment file (JSON) with a budget in bpw")
      ->required();
  AddCommonOptions(command, options->common);
  command.callback([options] {
    ApplyCommonOptions(options->common);
    const Json table = RunAblation(ReadExperiment(options->experiment), options->common.json);
    if (options->common.json) fmt::print("{}\n", table.dump(2));
  });
}

}  // namespace mica
