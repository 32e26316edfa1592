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

void AddExperimentCommand(CLI::App& app, const std::string& name, const std::string& about,
                          const std::string& about_file,
                          Json (*run)(const Experiment& experiment, bool quiet)) {
  auto options = std::make_shared<ExperimentOptions>();
  CLI::App& command = *app.add_subcommand(name, about);
  command.add_option("experiment", options->experiment, about_file)->required();
  AddCommonOptions(command, options->common);
  command.callback([options, run] {
    ApplyCommonOptions(options->common);
    const Json result = run(ReadExperiment(options->experiment), options->common.json);
    if (options->common.json) WriteStdout(JsonText(result));
  });
}

}  // namespace mica
