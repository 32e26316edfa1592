#include "experiment/experiment_directory.h"

#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/system.h"
#include "compress/pipeline.h"
#include "io/text/datasets.h"
#include "record/identity.h"

namespace mica {
namespace fs = std::filesystem;
namespace {

constexpr const char* kExperiment = "experiment.json";

// Evaluating on what was calibrated on would flatter the result.
void CheckTextsDiffer(const Experiment& experiment, const EvaluationRecord& evaluation) {
  if (experiment.force) return;
  for (const DataSpec& calibration : experiment.compression.calibration.sources) {
    const LoadedText loaded = LoadText(calibration);
    CalibrationSource source;
    source.sha256 = loaded.fingerprint;
    source.content_sha256 = loaded.content_fingerprint;
    for (const auto& [name, set] : evaluation.sets) {
      if (!SameText(source, set.data)) continue;
      Fail(
          "{}: is calibration text and evaluation text ({}); use another file, or set \"force\": true in "
          "the experiment",
          calibration.path.string(), set.data.path.value_or(name));
    }
  }
}

}  // namespace

ExperimentDirectory::ExperimentDirectory(const Experiment& experiment, const CompressionSettings& compression,
                                         bool quiet)
    : experiment_(experiment), status_(experiment.directory / "status.json"), progress_(!quiet) {
  original_.emplace(Prepare(experiment.evaluation.model));
  CheckTextsDiffer(experiment, original_->Describe());
  CheckCompression({experiment.evaluation.model, {}, {}}, compression, progress_);
  Open();
  progress_.ReportTo(&status_);
  status_.SetExperiment(experiment.name);
}

Evaluation ExperimentDirectory::Prepare(const fs::path& model) const {
  EvaluationRequest request = experiment_.evaluation;
  request.model = model;
  if (experiment_.divergence && model != experiment_.evaluation.model)
    request.reference = experiment_.evaluation.model;
  request.seed = experiment_.compression.seed;
  request.force = experiment_.force;
  return Evaluation(request);
}

// A directory serves one experiment. Whether it is the same one is seen by what its results were made of, not
// by the words of the file.
void ExperimentDirectory::Open() const {
  const fs::path& directory = path();
  if (!fs::exists(directory / kExperiment)) {
    if (fs::exists(directory) && !fs::is_empty(directory))
      Fail("{}: is not empty and holds no experiment; give another \"directory\"", directory.string());
    MakeDirectories(directory);
    WriteJson(directory / kExperiment, experiment_.json);
  }
}

void ExperimentDirectory::Stage(const std::string& name) {
  ThrowIfInterrupted();
  status_.SetStage(name);
}

EvaluationRecord ExperimentDirectory::Evaluated(const std::string& stage, const fs::path& model,
                                                const std::string& result) {
  Stage(stage);
  const fs::path kept = path() / result;
  Evaluation evaluation =
      model == experiment_.evaluation.model && original_ ? std::move(*original_) : Prepare(model);
  if (fs::exists(kept)) {
    const EvaluationRecord earlier = EvaluationFromJson(ReadJson(kept), kept.string(), WrongTypes::kRefuse);
    const std::vector<std::string> differences = Differences(
        EvaluationIdentity(earlier), EvaluationIdentity(evaluation.Describe()), Unrecorded::kDiffers);
    if (!differences.empty()) {
      Fail("{}: was made of something else: {}; repeat the same to go on, or give another \"directory\"",
           kept.string(), JoinClauses(differences));
    }
  } else {
    WriteJson(kept, ToJson(evaluation.Measure(progress_)));
  }
  // From here on the directory is this experiment's, in the words in which it was run last.
  if (ReadJson(path() / kExperiment) != experiment_.json) WriteJson(path() / kExperiment, experiment_.json);
  const EvaluationRecord record = EvaluationFromJson(ReadJson(kept), kept.string(), WrongTypes::kRefuse);
  Ordered<double> perplexities;
  for (const auto& [name, set] : record.sets)
    perplexities.emplace_back(name, set.perplexity.value_or(std::numeric_limits<double>::quiet_NaN()));
  status_.SetLast(stage, perplexities);
  return record;
}

}  // namespace mica
