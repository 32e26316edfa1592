#include "cli/experiment.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/system.h"
#include "compress/pipeline.h"
#include "eval/comparison.h"
#include "eval/report.h"

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
  CheckKeys(json, {"data", "seqlen", "max_windows", "convention", "dtype"}, where);
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

// Evaluating on what was calibrated on would flatter the result.
void CheckTextsDiffer(const Experiment& experiment) {
  if (experiment.force) return;
  for (const DataSpec& calibration : experiment.compression.calibration.sources) {
    const std::string fingerprint = LoadText(calibration).fingerprint;
    for (const DataSpec& evaluation : experiment.evaluation.data) {
      if (LoadText(evaluation).fingerprint == fingerprint) {
        Fail(
            "{}: is calibration text and evaluation text ({}); use another file, or set \"force\": true in "
            "the experiment",
            calibration.path.string(), evaluation.path.string());
      }
    }
  }
}

class Run {
 public:
  Run(const Experiment& experiment, bool quiet)
      : experiment_(experiment), quiet_(quiet), directory_(experiment.directory), progress_(!quiet) {}

  Json Go() {
    OpenDirectory();
    CheckTextsDiffer(experiment_);
    progress_.WriteStatusTo(directory_ / "status.json");
    progress_.Note("experiment", experiment_.name);
    progress_.Note("stages", kStages);

    const Json baseline = Evaluated("baseline", experiment_.evaluation.model, directory_ / "baseline.json");
    Stage("compress");
    const fs::path packed = directory_ / "packed";
    if (!fs::exists(packed / "compression.json")) {
      CompressModel({experiment_.evaluation.model, packed, directory_ / "statistics.safetensors"},
                    experiment_.compression, progress_);
    }
    const Json compressed = Evaluated("evaluate", packed, directory_ / "compressed.json");
    Stage("compare");
    const Comparison comparison = Compare(baseline, (directory_ / "baseline.json").string(), compressed,
                                          (directory_ / "compressed.json").string(), false);
    const Json json = ComparisonJson(comparison);
    WriteJson(directory_ / "comparison.json", json);
    for (const Language language : {Language::kEnglish, Language::kChinese}) {
      const Document document = BuildReport(comparison, language);
      const std::string stem = language == Language::kEnglish ? "comparison" : "comparison.zh";
      WriteFileAtomically(directory_ / (stem + ".txt"), RenderText(document));
      WriteFileAtomically(directory_ / (stem + ".md"), RenderMarkdown(document));
      WriteFileAtomically(directory_ / (stem + ".html"), RenderHtml(document));
      if (language == Language::kEnglish && !quiet_) std::fputs(RenderText(document).c_str(), stdout);
    }
    Stage("done");
    return json;
  }

 private:
  // A directory serves one experiment: its file is kept there and must agree when a run goes on.
  void OpenDirectory() {
    const fs::path kept = directory_ / "experiment.json";
    if (fs::exists(kept)) {
      if (ReadJson(kept) == experiment_.json) return;
      Fail("{}: holds another experiment; give this one another \"directory\", or delete it",
           directory_.string());
    }
    if (fs::exists(directory_) && !fs::is_empty(directory_)) {
      Fail("{}: is not empty and holds no experiment; give another \"directory\"", directory_.string());
    }
    MakeDirectories(directory_);
    WriteJson(kept, experiment_.json);
  }

  void Stage(const std::string& name) {
    ThrowIfInterrupted();
    progress_.Note("stage", name);
  }

  Json Evaluated(const std::string& stage, const fs::path& model, const fs::path& result_path) {
    Stage(stage);
    if (!fs::exists(result_path)) {
      EvaluationRequest request = experiment_.evaluation;
      request.model = model;
      request.seed = experiment_.compression.seed;
      request.force = experiment_.force;
      WriteJson(result_path, Evaluate(request, progress_));
    }
    const Json result = ReadJson(result_path);
    Json last = Json::object();
    for (const auto& [name, set] : result.at("datasets").items()) last[name] = set.value("ppl", Json());
    progress_.Note("last", {{"stage", stage}, {"ppl", last}});
    return result;
  }

  const Experiment& experiment_;
  const bool quiet_;
  const fs::path directory_;
  Progress progress_;
};

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
  experiment.evaluation.model = (base / Get<std::string>(json, "model", "", where)).lexically_normal();
  experiment.compression = SettingsFromJson(json.at("compress"), where + ", \"compress\"");
  for (DataSpec& source : experiment.compression.calibration.sources) source.path = base / source.path;
  CheckSettings(experiment.compression);
  return experiment;
}

Json RunExperiment(const Experiment& experiment, bool quiet) { return Run(experiment, quiet).Go(); }

}  // namespace mica
