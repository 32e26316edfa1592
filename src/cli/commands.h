// The commands. Each throws Error when its work fails.
#pragma once

#include "cli/command.h"

namespace mica {

Subcommand InspectCommand();
Subcommand TokenizeCommand();
Subcommand GenerateCommand();
Subcommand ChatCommand();
Subcommand BenchCommand();
Subcommand EvalCommand();
Subcommand CompressCommand();
Subcommand CompareCommand();
Subcommand RunCommand();
Subcommand SweepCommand();
Subcommand StatusCommand();
Subcommand AblateCommand();
Subcommand ExportCommand();
Subcommand SynthesizeCommand();

}  // namespace mica
