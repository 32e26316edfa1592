#include "experiment/experiment.h"

#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/output.h"
#include "base/terminal.h"
#include "base/text.h"
#include "eval/measure/request.h"
#include "eval/report/comparison.h"
#include "eval/report/report.h"
#include "experiment/experiment_directory.h"
#include "experiment/quality/quality_search.h"
#include "experiment/samples_stage.h"
#include "record/compression.h"
#include "record/options.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kStages[] = {"baseline", "compress", "evaluate", "samples", "compare"};

}  // namespace

CompressionSettings CompressionFromJson(Json json, const std::string& where, const fs::path& base,
                                        std::optional<QualityBudget>* quality) {
  if (quality != nullptr) *quality = TakeQuality(json, where);
  CompressionSettings settings = SettingsFromJson(json, where);
  for (DataSpec& source : settings.calibration.sources) {
    if (source.kind != DataKind::kBuiltIn) source.path = base / source.path;
  }
  if (settings.calibration.sources.empty())
    Fail("{}: \"calib\" names no text to calibrate on; leave it out for the built-in text", where);
  CheckSettings(settings);
  return settings;
}

void RefuseSweep(const Experiment& experiment) {
  if (!experiment.sweep.is_null())
    Fail("{}: has a \"sweep\"; run it with mica sweep, or leave the sweep out", experiment.file.string());
}

Experiment ReadExperiment(const fs::path& path) {
  return ExperimentFromJson(ReadJson(path, DuplicateKeys::kRefuse), path);
}

Experiment ExperimentFromJson(Json json, const fs::path& path) {
  Experiment experiment;
  experiment.json = std::move(json);
  const std::string where = path.string();
  const fs::path base = path.has_parent_path() ? path.parent_path() : fs::path(".");
  experiment.name = path.stem().string();
  std::string model, directory;
  JsonReader reader(experiment.json, where);
  reader.Read("name", experiment.name);
  reader.Read("model", model);
  reader.Read("directory", directory);
  reader.Read("force", experiment.force);
  const Json* evaluate = reader.Find("evaluate");
  const Json* compress = reader.Find("compress");
  const Json* samples = reader.Find("samples");
  const Json* expect = reader.Find("expect");
  if (const Json* sweep = reader.Find("sweep")) {
    if (!sweep->is_object()) reader.RefuseType("sweep", *sweep, "an object");
    experiment.sweep = *sweep;
  }
  reader.Finish();
  if (experiment.json.contains("name") && !IsLabel(experiment.name))
    Fail("{}: \"name\" is {}, expected {}", where, ShownJson(experiment.json["name"]), kLabelRule);
  for (const char* key : {"model", "directory", "evaluate", "compress"}) {
    if (!experiment.json.contains(key)) Fail("{}: has no \"{}\"", where, key);
  }
  for (const char* key : {"name", "model", "directory"}) {
    if (experiment.json.value(key, Json("-")) == "") Fail("{}: \"{}\" is empty, expected text", where, key);
  }
  experiment.directory = (base / directory).lexically_normal();
  experiment.evaluation = RequestFromJson(*evaluate, where + ", \"evaluate\"");
  for (DataSpec& set : experiment.evaluation.data) set.path = base / set.path;
  experiment.divergence = ValueOf(*evaluate, FindOption(EvaluationOptionTable(), "divergence"));
  experiment.evaluation.model = (base / model).lexically_normal();
  experiment.file = path;
  experiment.base = base;
  experiment.compression = CompressionFromJson(*compress, where + ", \"compress\"", base, &experiment.quality);
  if (experiment.quality && experiment.quality->kind == QualityKind::kKl) experiment.divergence = true;
  if (samples != nullptr) experiment.samples = SampleSettingsFromJson(*samples, where + ", \"samples\"");
  if (expect != nullptr) experiment.expected = ExpectationsFromJson(*expect, where + ", \"expect\"", base);
  for (const auto& [path, lines] : experiment.expected.lines) {
    const auto is_it = [&named = path](const DataSpec& text) { return text.path == named; };
    if (!std::ranges::any_of(experiment.evaluation.data, is_it) &&
        !std::ranges::any_of(experiment.compression.calibration.sources, is_it))
      Fail("{}, \"expect\": \"lines\" names {}, which is no text of the experiment", where, path.string());
  }
  return experiment;
}

std::string WriteComparison(const Comparison& comparison, const fs::path& directory) {
  WriteJson(directory / kComparisonFile, ComparisonJson(comparison));
  std::string report;
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    const Document document = BuildReport(comparison, language);
    const std::string stem = language == Language::kEnglish ? "comparison" : "comparison.zh";
    WriteFileAtomically(directory / (stem + ".txt"), RenderText(document));
    WriteFileAtomically(directory / (stem + ".md"), RenderMarkdown(document));
    WriteFileAtomically(directory / (stem + ".html"), RenderHtml(document));
    if (language == Language::kEnglish)
      report = RenderText(document, std::min(kReportColumns, TerminalColumns(STDOUT_FILENO, kReportColumns)));
  }
  return report;
}

Comparison RunExperiment(const Experiment& experiment, bool quiet) {
  RefuseSweep(experiment);
  RefuseIdleOptions(experiment.compression, GivenIn(experiment.json.at("compress")));
  CompressionSettings settings = experiment.compression;
  if (experiment.quality) settings = FirstSettings({experiment.evaluation.model, {}, {}}, settings, *experiment.quality);
  ExperimentDirectory directory(experiment, settings, quiet);
  directory.status().SetStages({std::begin(kStages), std::end(kStages)});
  const fs::path baseline_path = directory.path() / kBaselineFile,
                 compressed_path = directory.path() / kCompressedFile,
                 packed = directory.path() / kPackedDirectory;
  const EvaluationRecord baseline =
      directory.Evaluated("baseline", experiment.evaluation.model, kBaselineFile);
  directory.Stage("compress");
  directory.Compress({experiment.evaluation.model, packed, directory.path() / kStatisticsFile}, settings,
                     experiment.quality, kCompressedFile);
  EvaluationRecord compressed = directory.Evaluated("evaluate", packed, kCompressedFile);
  directory.Stage("samples");
  if (TakeSamples(directory, baseline, packed, compressed)) WriteJson(compressed_path, ToJson(compressed));
  directory.Stage("compare");
  const Comparison comparison =
      Compare(baseline, baseline_path.string(), compressed, compressed_path.string(), false);
  const std::string report = WriteComparison(comparison, directory.path());
  directory.Stage("done");
  if (!quiet) WriteStdout(report);
  return comparison;
}

}  // namespace mica
