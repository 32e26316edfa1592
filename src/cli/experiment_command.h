// What commands whose one argument is an experiment file have in common.
#pragma once

#include <filesystem>

#include "cli/command.h"
#include "cli/common_options.h"
#include "experiment/check.h"
#include "experiment/experiment.h"

namespace mica {

struct ExperimentOptions {
  CommonOptions common;
  std::filesystem::path experiment;
};

// Applies the common options and reads the file, to be computed on the device that they name.
Experiment OpenExperiment(ExperimentOptions& options);
// Prints what --check has found. Throws Error when something is wrong.
void ShowCheck(const Experiment& experiment, const ExperimentCheck& check, bool json);

}  // namespace mica
