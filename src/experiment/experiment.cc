#include "experiment/experiment.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/output.h"
#include "compress/pipeline.h"
#include "eval/measure/request.h"
#include "eval/report/comparison.h"
#include "eval/report/report.h"
#include "experiment/experiment_directory.h"
#include "record/options.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kStages[] = {"baseline", "compress", "evaluate", "compare"};

template <typename T>
T Get(const Json& json, const char* key, const T& fallback, const std::string& where) {
  const auto found = json.find(key);
  if (found == json.end()) return fallback;
  try {
    return found->template get<T>();
  } catch (const nlohmann::json::exception&) {
    Fail("{}: \"{}\" is {}, which is not of the right type", where, key, found->dump());
  }
}

void CheckKeys(const Json& json, const std::vector<std::string>& known, const std::string& where) {
  if (!json.is_object()) Fail("{}: is {}, expected an object", where, json.type_name());
  for (const auto& item : json.items()) {
    if (std::find(known.begin(), known.end(), item.key()) == known.end()) {
      Fail("{}: unknown key \"{}\", expected one of {}", where, item.key(), fmt::join(known, ", "));
    }
  }
}

}  // namespace

Experiment ReadExperiment(const fs::path& path) {
  Experiment experiment;
  experiment.json = ReadJson(path);
  const Json& json = experiment.json;
  const std::string where = path.string();
  const fs::path base = path.has_parent_path() ? path.parent_path() : fs::path(".");
  CheckKeys(json, {"name", "model", "directory", "force", "evaluate", "compress"}, where);
  for (const char* key : {"model", "directory", "evaluate", "compress"}) {
    if (!json.contains(key)) Fail("{}: has no \"{}\"", where, key);
  }
  experiment.name = Get<std::string>(json, "name", path.stem().string(), where);
  experiment.directory = (base / Get<std::string>(json, "directory", "", where)).lexically_normal();
  experiment.force = Get<bool>(json, "force", false, where);
  experiment.evaluation = RequestFromJson(json.at("evaluate"), where + ", \"evaluate\"");
  for (DataSpec& set : experiment.evaluation.data) set.path = base / set.path;
  experiment.divergence = ValueOf(json.at("evaluate"), FindOption(EvaluationOptionTable(), "divergence"));
  experiment.evaluation.model = (base / Get<std::string>(json, "model", "", where)).lexically_normal();
  experiment.compression = SettingsFromJson(json.at("compress"), where + ", \"compress\"");
  for (DataSpec& source : experiment.compression.calibration.sources) source.path = base / source.path;
  if (experiment.compression.calibration.sources.empty())
    Fail("{}, \"compress\": \"calib\" names no text to calibrate on", where);
  CheckSettings(experiment.compression);
  return experiment;
}

Json RunExperiment(const Experiment& experiment, bool quiet) {
  RefuseIdleOptions(experiment.compression, GivenIn(experiment.json.at("compress")));
  ExperimentDirectory directory(experiment, quiet);
  directory.progress().Note("stages", kStages);
  const fs::path baseline_path = directory.path() / "baseline.json",
                 compressed_path = directory.path() / "compressed.json", packed = directory.path() / "packed";
  const Json baseline = directory.Evaluated("baseline", experiment.evaluation.model, "baseline.json");
  directory.Stage("compress");
  if (!fs::exists(packed / "compression.json")) {
    CompressModel({experiment.evaluation.model, packed, directory.path() / "statistics.safetensors"},
                  experiment.compression, directory.progress());
  }
  const Json compressed = directory.Evaluated("evaluate", packed, "compressed.json");
  directory.Stage("compare");
  const Comparison comparison =
      Compare(baseline, baseline_path.string(), compressed, compressed_path.string(), false);
  const Json json = ComparisonJson(comparison);
  WriteJson(directory.path() / "comparison.json", json);
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    const Document document = BuildReport(comparison, language);
    const std::string stem = language == Language::kEnglish ? "comparison" : "comparison.zh";
    WriteFileAtomically(directory.path() / (stem + ".txt"), RenderText(document));
    WriteFileAtomically(directory.path() / (stem + ".md"), RenderMarkdown(document));
    WriteFileAtomically(directory.path() / (stem + ".html"), RenderHtml(document));
    if (language == Language::kEnglish && !quiet) WriteStdout(RenderText(document));
  }
  directory.Stage("done");
  return json;
}

}  // namespace mica
