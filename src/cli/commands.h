// The commands. Each throws Error when its work fails.
#pragma once

#include "cli/command.h"

namespace mica {

Command InspectCommand();
Command TokenizeCommand();
Command EvalCommand();
Command CompressCommand();
Command CompareCommand();
Command RunCommand();
Command StatusCommand();
Command AblateCommand();
Command ExportCommand();
Command SynthesizeCommand();

}  // namespace mica
