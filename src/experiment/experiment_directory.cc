#include "experiment/experiment_directory.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/system.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

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

// A directory serves one experiment: its file is kept there and must agree when a run goes on.
void OpenDirectory(const Experiment& experiment) {
  const fs::path& directory = experiment.directory;
  const fs::path kept = directory / "experiment.json";
  if (fs::exists(kept)) {
    if (ReadJson(kept) == experiment.json) return;
    Fail("{}: holds another experiment; give this one another \"directory\", or delete it",
         directory.string());
  }
  if (fs::exists(directory) && !fs::is_empty(directory)) {
    Fail("{}: is not empty and holds no experiment; give another \"directory\"", directory.string());
  }
  MakeDirectories(directory);
  WriteJson(kept, experiment.json);
}

}  // namespace

ExperimentDirectory::ExperimentDirectory(const Experiment& experiment, bool quiet)
    : experiment_(experiment), status_(experiment.directory / "status.json"), progress_(!quiet) {
  OpenDirectory(experiment);
  CheckTextsDiffer(experiment);
  progress_.ReportTo(&status_);
  status_.SetExperiment(experiment.name);
}

void ExperimentDirectory::Stage(const std::string& name) {
  ThrowIfInterrupted();
  status_.SetStage(name);
}

EvaluationRecord ExperimentDirectory::Evaluated(const std::string& stage, const fs::path& model,
                                                const std::string& result) {
  Stage(stage);
  const fs::path kept = path() / result;
  if (!fs::exists(kept)) {
    EvaluationRequest request = experiment_.evaluation;
    request.model = model;
    if (experiment_.divergence && model != experiment_.evaluation.model)
      request.reference = experiment_.evaluation.model;
    request.seed = experiment_.compression.seed;
    request.force = experiment_.force;
    WriteJson(kept, ToJson(Evaluate(request, progress_)));
  }
  const EvaluationRecord record = EvaluationFromJson(ReadJson(kept), kept.string(), WrongTypes::kRefuse);
  Ordered<double> perplexities;
  for (const auto& [name, set] : record.sets) {
    const std::optional<double> nats = LogPerplexity(set);
    perplexities.emplace_back(name, nats ? std::min(std::exp(*nats), std::numeric_limits<double>::max())
                                         : std::numeric_limits<double>::quiet_NaN());
  }
  status_.SetLast(stage, perplexities);
  return record;
}

}  // namespace mica
