// mica: compress LLaMA-family language models by mutual information and measure what it cost.
// Exit codes: 0 done, 1 the work failed or its result could not be written (one line on stderr says what and
// where), 2 usage, 130 interrupted.
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/output.h"
#include "base/system.h"
#include "base/units.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/ranks.h"
#include "ops/blas_kernels.h"

namespace mica {
namespace {

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
int DoCommand(int argc, char** argv) {
  try {
    const std::vector<Subcommand> commands = {
        InspectCommand(), TokenizeCommand(), EvalCommand(),   CompressCommand(), CompareCommand(),
        RunCommand(),     SweepCommand(),    StatusCommand(),   GenerateCommand(), ChatCommand(), BenchCommand(),    AblateCommand(),
        ExportCommand(),  SynthesizeCommand()};
    if (const Subcommand* command = ParseCommandLine(commands, argc, argv)) command->run();
    CloseStdout();
    return 0;
  } catch (const CommandEnd& end) {
    return end.code;
  } catch (const Interrupted& interrupt) {
    LogFailure(std::string(interrupt.what()) + "; what was finished is kept, run the same command to go on");
    return 130;
  } catch (const UsageError& failure) {
    LogFailure(failure.what());
    return 2;
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

int Run(int argc, char** argv) {
  const int code = DoCommand(argc, argv);
  try {
    LeaveRanks(code == 0);
  } catch (const Error& failure) {
    LogFailure(failure.what());
    return 1;
  }
  return code;
}

// OpenBLAS has chosen its kernels by now; where it could do better, the program starts again and says so to it. A
// choice of the user's own stays.
void ChooseBlasKernels(char** argv) {
  const char* kernels = BetterBlasKernels();
  if (kernels == nullptr || ::getenv("OPENBLAS_CORETYPE") != nullptr) return;
  std::error_code missing;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", missing);
  if (missing || ::setenv("OPENBLAS_CORETYPE", kernels, 1) != 0) return;
  ::execv(program.c_str(), argv);  // and where that is not possible, it goes on as it is
}

}  // namespace
}  // namespace mica

int main(int argc, char** argv) {
  mica::ChooseBlasKernels(argv);
  mica::PrepareStreams();
  std::set_terminate(mica::Terminate);
  mica::CatchInterrupts();
  mica::KeepFreedMemory();
  return mica::Run(argc, argv);
}
