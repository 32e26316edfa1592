#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/json.h"
#include "base/output.h"
#include "base/terminal.h"
#include "cli/commands.h"
#include "eval/report/comparison.h"
#include "eval/report/report.h"
#include "record/options.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

struct CompareOptions {
  fs::path baseline, compressed;
  Json given = Json::object();
};

// What --format says, else what the name of the output file says.
std::string FormatOf(const Json& format, bool json, const fs::path& out) {
  if (json) return "json";
  if (!format.is_null()) return format;
  const std::string extension = out.extension().string();
  if (extension == ".html" || extension == ".htm") return "html";
  if (extension == ".md") return "markdown";
  if (extension == ".json") return "json";
  return "text";
}

std::string Render(const Comparison& comparison, const Document& document, const std::string& format,
                   size_t columns) {
  if (format == "json") return JsonText(ComparisonJson(comparison));
  if (format == "markdown") return RenderMarkdown(document);
  if (format == "html") return RenderHtml(document);
  return RenderText(document, columns);
}

EvaluationRecord ReadResult(const fs::path& path) {
  return AnyEvaluationFromJson(ReadJson(path), path.string());
}

void RunCompare(const CompareOptions& options) {
  const auto value = [&](const char* name) {
    return ValueOf(options.given, FindOption(ComparisonOptionTable(), name));
  };
  const Json format = value("format");
  const bool json = value("json");
  const fs::path out = options.given.value("output", ""), html = options.given.value("html", "");
  if (json && !format.is_null() && format != "json")
    Fail("--json and --format {} disagree; give one of them", ValueText(format));
  const Language language = ParseLanguage(value("lang"));
  CheckFiles({.inputs = {options.baseline, options.compressed}, .outputs = {out, html}});
  for (const fs::path& path : {out, html}) {
    if (!path.empty()) CheckOutput(path);
  }
  const EvaluationRecord baseline = ReadResult(options.baseline), compressed = ReadResult(options.compressed);
  const Comparison comparison =
      Compare(baseline, options.baseline.string(), compressed, options.compressed.string(), value("force"));
  const Document document = BuildReport(comparison, language);
  const std::string report =
      Render(comparison, document, FormatOf(format, json, out),
             out.empty() ? std::min(kReportColumns, TerminalColumns(STDOUT_FILENO, kReportColumns))
                         : kReportColumns);
  std::vector<FileResult> results;
  if (!html.empty()) results.push_back({html, RenderHtml(document)});
  if (!out.empty()) results.push_back({out, report});
  WriteResults(results, out.empty() ? report : "");
}

}  // namespace

Subcommand CompareCommand() {
  auto options = std::make_shared<CompareOptions>();
  return {.name = "compare",
          .help = "Compare the result of a compressed model with its baseline's: quality, size, cost, advice",
          .arguments = {{"baseline", &options->baseline, "Result file of the original model (mica eval -o)"},
                        {"compressed", &options->compressed, "Result file of the compressed model"}},
          .flags = {{ComparisonOptionTable(), &options->given}},
          .run = [options] { RunCompare(*options); }};
}

}  // namespace mica
