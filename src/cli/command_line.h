// The command line: all commands with their flags and help, and which of them is to run. The library that
// parses is known to command_line.cc alone.
#pragma once

#include <span>
#include <string>

#include "cli/command.h"

namespace mica {

// The command that the arguments ask for, its values filled in and checked. Prints what --help and --version
// ask for and returns none then. Throws UsageError for a command line that does not fit, in one line, and
// Error for a value that an option cannot have.
const Subcommand* ParseCommandLine(std::span<const Subcommand> commands, int argc, char** argv);

}  // namespace mica
