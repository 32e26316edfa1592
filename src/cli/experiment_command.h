// A command whose one argument is an experiment file.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "experiment/experiment.h"

namespace mica {

// `run` does the work, prints for people unless told to be quiet, and returns what --json prints.
void AddExperimentCommand(CLI::App& app, const std::string& name, const std::string& about,
                          const std::string& about_file,
                          Json (*run)(const Experiment& experiment, bool quiet));

}  // namespace mica
