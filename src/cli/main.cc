// mica: compress LLaMA-family language models by mutual information and measure what it cost.
// Exit codes: 0 done, 1 the work failed (one line on stderr says what and where), 2 usage, 130 interrupted.
#include <cstdio>
#include <new>

#include "base/error.h"
#include "base/system.h"
#include "cli/commands.h"
#include "cli/option_flags.h"

int main(int argc, char** argv) {
  CLI::App app{"mica compresses LLaMA-family language models by mutual information and proves what it did."};
  app.name("mica");
  app.set_version_flag("--version", "mica " + mica::Version() + " (" + mica::Commit() + ")");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  mica::AddInspectCommand(app);
  mica::AddTokenizeCommand(app);
  mica::AddEvalCommand(app);
  mica::AddCompressCommand(app);
  mica::AddCompareCommand(app);
  mica::AddRunCommand(app);
  mica::AddStatusCommand(app);
  mica::AddAblateCommand(app);
  mica::AddExportCommand(app);
  mica::AddSynthesizeCommand(app);

  mica::CatchInterrupts();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::ParseError& failure) {
    std::fprintf(stderr, "mica: %s\n", mica::UsageText(app, failure).c_str());
    return 2;
  } catch (const mica::Interrupted& interrupt) {
    std::fprintf(stderr, "mica: %s; what was finished is kept, run the same command to go on\n",
                 interrupt.what());
    return 130;
  } catch (const mica::Error& failure) {
    std::fprintf(stderr, "mica: %s\n", failure.what());
    return 1;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "mica: out of memory; use fewer or shorter windows\n");
    return 1;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "mica: %s\n", failure.what());
    return 1;
  }
  return 0;
}
