#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <string>

#include "base/json.h"
#include "base/output.h"
#include "base/progress.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/common_options.h"
#include "model/export.h"
#include "record/options.h"

namespace mica {
namespace {

struct ExportRequest {
  std::filesystem::path packed, out;
  CommonOptions common;
  Json given = Json::object();
};

void RunExport(ExportRequest& request) {
  ApplyCommonOptions(request.common);
  ExportOptions options;
  const bool exact = ValueOf(request.given, FindOption(ExportOptionTable(), "dtype")) == "fp32";
  options.dtype = exact ? DType::kF32 : DType::kF16;
  Progress progress(!request.common.json);
  const ExportFacts facts = ExportPlain(request.packed, request.out, options, progress);
  if (request.common.json) {
    const Json result = {{"out", request.out.string()},
                         {"tensors", facts.tensors},
                         {"shards", facts.shards},
                         {"file_bytes", facts.file_bytes}};
    WriteStdout(JsonText(result));
  } else {
    WriteStdout(fmt::format("{}: {} tensors in {} {}, {}\n",
                            Printable(request.out.string(), std::string::npos), facts.tensors, facts.shards,
                            facts.shards == 1 ? "file" : "files",
                            FormatBytes(static_cast<double>(facts.file_bytes))));
  }
}

}  // namespace

Subcommand ExportCommand() {
  auto request = std::make_shared<ExportRequest>();
  return {.name = "export",
          .help = "Write a packed checkpoint as a plain one",
          .arguments = {{"packed", &request->packed, "Packed checkpoint"},
                        {"out", &request->out, "Plain checkpoint, a new directory"}},
          .flags = {{ExportOptionTable(), &request->given}, CommonFlags(request->common)},
          .run = [request] { RunExport(*request); }};
}

}  // namespace mica
