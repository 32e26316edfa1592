#include "experiment/experiment.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/output.h"
#include "compress/pipeline.h"
#include "device/precision.h"
#include "eval/report/comparison.h"
#include "eval/report/report.h"
#include "experiment/experiment_directory.h"

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

EvaluationRequest ReadEvaluation(const Json& json, const fs::path& base, const std::string& where) {
  CheckKeys(json, {"data", "seqlen", "max_windows", "convention", "dtype", "divergence"}, where);
  EvaluationRequest request;
  request.seqlen = Get<size_t>(json, "seqlen", 0, where);
  request.max_windows = Get<size_t>(json, "max_windows", 0, where);
  request.convention = ParseConvention(Get<std::string>(json, "convention", "gptq", where));
  const std::string dtype = Get<std::string>(json, "dtype", "auto", where);
  if (dtype != "auto" && dtype != "bf16" && dtype != "fp32") {
    Fail("{}: \"dtype\" is \"{}\", expected auto, bf16 or fp32", where, dtype);
  }
  if (dtype != "auto") request.precision = dtype == "bf16" ? Precision::kBf16 : Precision::kFp32;
  for (const Json& set : Get<Json>(json, "data", Json::array(), where)) {
    CheckKeys(set, {"kind", "name", "path"}, where + ", \"data\"");
    const std::string kind = Get<std::string>(set, "kind", "text", where);
    const fs::path path = base / Get<std::string>(set, "path", "", where);
    DataSpec spec = ParseDataSpec(kind + "=" + path.string());
    spec.name = Get<std::string>(set, "name", spec.name, where);
    request.data.push_back(spec);
  }
  if (request.data.empty()) Fail("{}: \"data\" names no text to evaluate on", where);
  return request;
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
  experiment.evaluation = ReadEvaluation(json.at("evaluate"), base, where + ", \"evaluate\"");
  experiment.divergence = Get<bool>(json.at("evaluate"), "divergence", false, where + ", \"evaluate\"");
  experiment.evaluation.model = (base / Get<std::string>(json, "model", "", where)).lexically_normal();
  experiment.compression = SettingsFromJson(json.at("compress"), where + ", \"compress\"");
  for (DataSpec& source : experiment.compression.calibration.sources) source.path = base / source.path;
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
