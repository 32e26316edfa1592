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
  std::filesystem::path model, out;
  CommonOptions common;
  Json given = Json::object();
};

void RunExport(ExportRequest& request) {
  ApplyCommonOptions(request.common);
  const auto value = [&](const char* name) {
    return ValueOf(request.given, FindOption(ExportOptionTable(), name));
  };
  if (const std::string output = request.given.value("output", ""); !output.empty()) {
    if (!request.out.empty())
      throw UsageError(fmt::format("both {} and --output are given; give one of them", request.out.string()));
    request.out = output;
  }
  if (request.out.empty()) throw UsageError("out is missing; see 'mica export --help'");
  ExportOptions options;
  if (const Json dtype = value("dtype"); !dtype.is_null())
    options.dtype = dtype == "fp32" ? DType::kF32 : dtype == "bf16" ? DType::kBF16 : DType::kF16;
  Progress progress(!request.common.json);
  const bool gguf = value("to") == "gguf";
  const ExportFacts facts = (gguf ? ExportGguf : ExportPlain)(request.model, request.out, options, progress);
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
  return {
      .name = "export",
      .help = "Write a packed checkpoint as a plain one, or any as a GGUF file",
      .arguments = {{"model", &request->model, "Packed checkpoint; for --to gguf any, or a GGUF file"},
                    {"out", &request->out, "Plain checkpoint, a new directory; for --to gguf a file", false}},
      .flags = {{ExportOptionTable(), &request->given}, CommonFlags(request->common)},
      .run = [request] { RunExport(*request); }};
}

}  // namespace mica
