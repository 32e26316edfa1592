// mica: compress LLaMA-family language models by mutual information and measure what it cost.
// Exit codes: 0 done, 1 the work failed or its result could not be written (one line on stderr says what and
// where), 2 usage, 130 interrupted.
#include <sys/resource.h>
#include <unistd.h>

#include <exception>
#include <filesystem>
#include <new>
#include <sstream>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/log.h"
#include "base/output.h"
#include "base/system.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/option_flags.h"

namespace mica {
namespace {

void AddCommands(CLI::App& app) {
  app.name("mica");
  app.set_version_flag("--version", "mica " + Version() + " (" + Commit() + ")");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  AddInspectCommand(app);
  AddTokenizeCommand(app);
  AddEvalCommand(app);
  AddCompressCommand(app);
  AddCompareCommand(app);
  AddRunCommand(app);
  AddStatusCommand(app);
  AddAblateCommand(app);
  AddExportCommand(app);
  AddSynthesizeCommand(app);
}

std::string OutOfMemory() {
  struct rlimit limit;
  const bool limited = ::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return "out of memory" +
         (limited ? " (ulimit -v allows " + FormatBytes(static_cast<double>(limit.rlim_cur)) + ")" : "") +
         "; use fewer or shorter windows, or fewer --threads";
}

// What is thrown where nobody can catch it, so that even this ends in a line.
[[noreturn]] void Terminate() {
  std::string_view line = "mica: internal error: an exception that nobody catches; please report this\n";
  try {
    if (std::current_exception()) throw;
  } catch (const std::bad_alloc&) {
    line = "mica: out of memory; use fewer or shorter windows, or fewer --threads\n";
  } catch (...) {
  }
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  ::_exit(1);
}

// The one place in which whatever ends a command becomes a line and an exit code.
int Run(int argc, char** argv) {
  try {
    CLI::App app{
        "mica compresses LLaMA-family language models by mutual information and proves what it did."};
    AddCommands(app);
    try {
      app.parse(argc, argv);
    } catch (const CLI::Success& request) {  // --help, --version
      std::ostringstream text;
      app.exit(request, text, text);
      WriteStdout(text.str());
    } catch (const CLI::ParseError& failure) {
      LogFailure(UsageText(app, failure));
      return 2;
    }
    CloseStdout();
    return 0;
  } catch (const Interrupted& interrupt) {
    LogFailure(std::string(interrupt.what()) + "; what was finished is kept, run the same command to go on");
    return 130;
  } catch (const Error& failure) {
    LogFailure(failure.what());
  } catch (const std::bad_alloc&) {
    LogFailure(OutOfMemory());
  } catch (const std::filesystem::filesystem_error& failure) {
    LogFailure(failure.path1().string() + ": " + failure.code().message());
  } catch (const std::exception& failure) {
    LogDebug("{}", failure.what());
    LogFailure("internal error: an exception of a library; please report this with the command");
  }
  return 1;
}

}  // namespace
}  // namespace mica

int main(int argc, char** argv) {
  mica::PrepareStreams();
  std::set_terminate(mica::Terminate);
  mica::CatchInterrupts();
  return mica::Run(argc, argv);
}
