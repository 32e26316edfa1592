// A command whose one argument is an experiment file.
#pragma once

#include <string>

#include "cli/command.h"
#include "experiment/experiment.h"

namespace mica {

// `run` does the work, prints for people unless told to be quiet, and returns what --json prints.
Subcommand ExperimentCommand(const std::string& name, const std::string& help, const char* help_of_file,
                             Json (*run)(const Experiment& experiment, bool quiet));

}  // namespace mica
