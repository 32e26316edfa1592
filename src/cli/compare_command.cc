#include <algorithm>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "base/json.h"
#include "base/output.h"
#include "cli/commands.h"
#include "eval/report/comparison.h"
#include "eval/report/report.h"

namespace mica {
namespace {

namespace fs = std::filesystem;

struct CompareOptions {
  fs::path baseline, compressed, out, html;
  std::string format;
  std::string language = "en";
  bool json = false;
  bool force = false;
};

// What --format says, else what the name of the output file says.
std::string FormatOf(const CompareOptions& options) {
  if (options.json) return "json";
  if (!options.format.empty()) return options.format;
  const std::string extension = options.out.extension().string();
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
  if (options.json && !options.format.empty() && options.format != "json")
    Fail("--json and --format {} disagree; give one of them", options.format);
  const Language language = ParseLanguage(options.language);
  for (const fs::path& path : {options.out, options.html}) {
    if (!path.empty()) CheckOutput(path);
  }
  const EvaluationRecord baseline = ReadResult(options.baseline), compressed = ReadResult(options.compressed);
  const Comparison comparison =
      Compare(baseline, options.baseline.string(), compressed, options.compressed.string(), options.force);
  const Document document = BuildReport(comparison, language);
  const std::string report = Render(
      comparison, document, FormatOf(options),
      options.out.empty() ? std::min(kReportColumns, TerminalColumns(kReportColumns)) : kReportColumns);
  if (!options.html.empty()) WriteOutput(options.html, RenderHtml(document));
  if (!options.out.empty()) {
    WriteOutput(options.out, report);
  } else {
    WriteStdout(report);
  }
}

}  // namespace

void AddCompareCommand(CLI::App& app) {
  auto options = std::make_shared<CompareOptions>();
  CLI::App& command = *app.add_subcommand(
      "compare", "Compare the result of a compressed model with its baseline's: quality, size, cost, advice");
  command.add_option("baseline", options->baseline, "Result file of the original model (mica eval -o)")
      ->required();
  command.add_option("compressed", options->compressed, "Result file of the compressed model")->required();
  command
      .add_option("--format", options->format,
                  "text, json, markdown or html [what the name of -o says, else text]")
      ->check(CLI::IsMember({"text", "json", "markdown", "html"}));
  command.add_option("-o,--output", options->out, "Write the report to this file instead of stdout");
  command.add_option("--html", options->html, "Also write the report as an HTML page to this file");
  command.add_option("--lang", options->language, "Language of the report: en or zh")
      ->check(CLI::IsMember({"en", "zh"}))
      ->capture_default_str();
  command.add_flag("--force", options->force,
                   "Compare results that were not measured alike; the report says so");
  command.add_flag("--json", options->json, "The same as --format json");
  command.callback([options] { RunCompare(*options); });
}

}  // namespace mica
