#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>

#include "base/output.h"
#include "base/progress.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/option_flags.h"
#include "model/export.h"
#include "record/options.h"

namespace mica {
namespace {

struct ExportCommand {
  std::filesystem::path packed, out;
  CommonOptions common;
  Json given = Json::object();
};

void RunExport(ExportCommand& command) {
  ApplyCommonOptions(command.common);
  ExportOptions options;
  const bool exact = ValueOf(command.given, FindOption(ExportOptionTable(), "dtype")) == "fp32";
  options.dtype = exact ? DType::kF32 : DType::kF16;
  Progress progress(!command.common.json);
  const ExportFacts facts = ExportPlain(command.packed, command.out, options, progress);
  if (command.common.json) {
    const Json result = {{"out", command.out.string()},
                         {"tensors", facts.tensors},
                         {"shards", facts.shards},
                         {"file_bytes", facts.file_bytes}};
    WriteStdout(JsonText(result));
  } else {
    WriteStdout(fmt::format("{}: {} tensors in {} {}, {}\n",
                            Printable(command.out.string(), std::string::npos), facts.tensors, facts.shards,
                            facts.shards == 1 ? "file" : "files",
                            FormatBytes(static_cast<double>(facts.file_bytes))));
  }
}

}  // namespace

void AddExportCommand(CLI::App& app) {
  CLI::App* export_command = app.add_subcommand("export", "Write a packed checkpoint as a plain one");
  const auto command = std::make_shared<ExportCommand>();
  export_command->add_option("packed", command->packed, "Packed checkpoint")->required();
  export_command->add_option("out", command->out, "Plain checkpoint, a new directory")->required();
  AddFlags(*export_command, ExportOptionTable(), command->given, WrongValue::kIsUsage);
  AddCommonOptions(*export_command, command->common);
  export_command->callback([command] { RunExport(*command); });
}

}  // namespace mica
