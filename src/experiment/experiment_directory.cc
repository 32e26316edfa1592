#include "experiment/experiment_directory.h"

#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/output.h"
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

constexpr const char* kLock = ".lock";
constexpr const char* kKept = "experiment.json";

void RefuseOtherFiles(const fs::path& directory) {
  if (fs::exists(directory) && !fs::exists(directory / kKept) && !HoldsNothing(directory, {kLock})) {
    Fail("{}: is not empty and holds no experiment; give another \"directory\"", directory.string());
  }
}

// Takes the directory for this process alone.
std::unique_ptr<FileLock> LockDirectory(const Experiment& experiment) {
  CommandFiles files{
      .inputs = {experiment.evaluation.model}, .directories = {experiment.directory}};
  CheckFiles(files);
  RefuseOtherFiles(experiment.directory);
  MakeDirectories(experiment.directory);
  auto lock = std::make_unique<FileLock>(experiment.directory / kLock, experiment.directory);
  RemoveTemporaryFiles(experiment.directory);
  return lock;
}

// A directory serves one experiment: its file is kept there and must agree when a run goes on.
void OpenDirectory(const Experiment& experiment) {
  const fs::path& directory = experiment.directory;
  const fs::path kept = directory / kKept;
  if (fs::exists(kept)) {
    if (ReadJson(kept) == experiment.json) return;
    Fail("{}: holds another experiment; give this one another \"directory\", or delete it",
         directory.string());
  }
  RefuseOtherFiles(directory);
  WriteJson(kept, experiment.json);
}

}  // namespace

ExperimentDirectory::ExperimentDirectory(const Experiment& experiment, bool quiet)
    : experiment_(experiment),
      lock_(LockDirectory(experiment)),
      status_(experiment.directory / "status.json"),
      progress_(!quiet) {
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
  for (const auto& [name, set] : record.sets)
    perplexities.emplace_back(name, set.perplexity.value_or(std::numeric_limits<double>::quiet_NaN()));
  status_.SetLast(stage, perplexities);
  return record;
}

}  // namespace mica
