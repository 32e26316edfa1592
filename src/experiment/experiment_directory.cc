#include "experiment/experiment_directory.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/output.h"
#include "base/system.h"
#include "compress/pipeline.h"
#include "device/cuda.h"
#include "experiment/kept_result.h"
#include "experiment/quality/quality_search.h"
#include "io/text/datasets.h"
#include "record/identity.h"

namespace mica {
namespace fs = std::filesystem;

namespace {

// A model or a text that the experiment was not written for.
void CheckExpectations(const Experiment& experiment) {
  if (experiment.expected.OfModel())
    CheckExpected(experiment.expected, ModelWeights::Open(experiment.evaluation.model));
  if (experiment.expected.lines.empty()) return;
  for (const auto* texts : {&experiment.evaluation.data, &experiment.compression.calibration.sources}) {
    for (const DataSpec& text : *texts) {
      const bool expected = std::ranges::any_of(experiment.expected.lines,
                                                [&](const auto& of) { return of.first == text.path; });
      if (expected) CheckExpected(experiment.expected, text.path, LoadText(text).lines);
    }
  }
}

constexpr const char* kLock = ".lock";

void RefuseOtherFiles(const fs::path& directory) {
  if (fs::exists(directory) && !fs::exists(directory / kExperimentFile) &&
      !HoldsNothing(directory, {kLock})) {
    Fail("{}: is not empty and holds no experiment; give another \"directory\"", directory.string());
  }
}

// Takes the directory for this process alone.
std::unique_ptr<FileLock> LockDirectory(const Experiment& experiment) {
  RefuseOtherFiles(experiment.directory);
  MakeDirectories(experiment.directory);
  auto lock = std::make_unique<FileLock>(experiment.directory / kLock, experiment.directory);
  RefuseOtherFiles(experiment.directory);
  RemoveTemporaryFiles(experiment.directory);
  return lock;
}

}  // namespace

void CheckDirectory(const Experiment& experiment) {
  CheckFiles({.inputs = {experiment.evaluation.model}, .directories = {experiment.directory}});
  RefuseOtherFiles(experiment.directory);
}

ExperimentDirectory::ExperimentDirectory(const Experiment& experiment, const CompressionSettings& compression,
                                         bool quiet)
    : experiment_(experiment), status_(experiment.directory / kStatusFile), progress_(!quiet) {
  CheckDirectory(experiment);
  CheckExpectations(experiment);
  if (experiment.divergence && (!experiment.sweep.is_null() || experiment.quality)) passed_ = PassedWindows::InFreeMemory();
  original_.emplace(RequestOf(experiment.evaluation.model));
  prompts_ = original_->Prompts(experiment.samples);
  CheckTexts(compression);
  CheckCompression({experiment.evaluation.model, {}, {}}, compression, progress_);
  lock_ = LockDirectory(experiment);
  // A directory serves one experiment. Whether it is the same one is seen by what its results were made of,
  // not by the words of the file.
  if (!fs::exists(path() / kExperimentFile)) WriteJson(path() / kExperimentFile, experiment.json);
  progress_.ReportTo(&status_);
  status_.SetExperiment(experiment.name);
  if (const Device device = experiment.evaluation.device; device.is_cuda()) {
    const CudaProperties properties = PropertiesOf(device);
    status_.SetGpu(properties.name, properties.bus);
  }
}

// Evaluating on what was calibrated on would flatter the result.
void ExperimentDirectory::CheckTexts(const CompressionSettings& compression) {
  if (experiment_.force) return;
  const EvaluationRecord& evaluation = original_->Describe();
  for (const DataSpec& calibration : compression.calibration.sources) {
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

EvaluationRequest ExperimentDirectory::RequestOf(const fs::path& model) const {
  EvaluationRequest request = experiment_.evaluation;
  request.model = model;
  if (experiment_.divergence && model != experiment_.evaluation.model)
    request.reference = experiment_.evaluation.model;
  request.seed = experiment_.compression.seed;
  request.force = experiment_.force;
  request.passed = passed_;
  return request;
}

void ExperimentDirectory::Compress(const CompressionPaths& paths, const CompressionSettings& settings,
                                   const std::optional<QualityBudget>& quality, const std::string& result) {
  if (!quality) {
    CompressModel(paths, settings, progress_);
    return;
  }
  CompressToQuality({.paths = paths,
                     .work = paths.out.parent_path() / kSearchDirectory,
                     .result = path() / result,
                     .settings = settings,
                     .budget = *quality,
                     .evaluation = RequestOf(paths.out),
                     .baseline = path() / kBaselineFile,
                     .stage = [this](const std::string& what) { Stage(what); }},
                    progress_);
}

void ExperimentDirectory::Stage(const std::string& name) {
  ThrowIfInterrupted();
  status_.SetStage(name);
}

TokenLosses ExperimentDirectory::OriginalLosses() const {
  const fs::path losses = path() / kBaselineLossesFile, result = path() / kBaselineFile;
  try {
    TokenLosses kept = ReadTokenLosses(losses);
    if (AreOf(kept, EvaluationFromJson(ReadJson(result), result.string()))) return kept;
    LogWarning("{}: does not belong to {}, so the result will not say which tokens lost most; delete both to "
               "measure anew",
               losses.string(), result.string());
  } catch (const Interrupted&) {
    throw;
  } catch (const Error& error) {
    LogWarning("{}; the result will not say which tokens lost most", error.what());
  }
  return {};
}

EvaluationRecord ExperimentDirectory::Evaluated(const std::string& stage, const fs::path& model,
                                                const std::string& result) {
  Stage(stage);
  const fs::path kept = path() / result;
  Evaluation evaluation =
      model == experiment_.evaluation.model && original_ ? std::move(*original_) : Evaluation(RequestOf(model));
  const bool is_original = model == experiment_.evaluation.model;
  TokenLosses of_original;
  if (!is_original && !fs::exists(kept)) of_original = OriginalLosses();
  const EvaluationRecord record = MeasuredOnce(evaluation, kept, progress_, is_original ? nullptr : &of_original,
                                               is_original ? path() / kBaselineLossesFile : fs::path());
  // From here on the directory is this experiment's, in the words in which it was run last.
  if (ReadJson(path() / kExperimentFile) != experiment_.json)
    WriteJson(path() / kExperimentFile, experiment_.json);
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
