// One function per command: it declares the flags and, as the command's callback, does the work. Failures
// throw Error.
#pragma once

#include <CLI/CLI.hpp>

namespace mica {

void AddInspectCommand(CLI::App& app);
void AddTokenizeCommand(CLI::App& app);
void AddEvalCommand(CLI::App& app);
void AddCompressCommand(CLI::App& app);
void AddCompareCommand(CLI::App& app);
void AddRunCommand(CLI::App& app);
void AddStatusCommand(CLI::App& app);
void AddAblateCommand(CLI::App& app);
void AddExportCommand(CLI::App& app);
void AddSynthesizeCommand(CLI::App& app);

}  // namespace mica
