// The directory an experiment runs in: kept apart from other experiments, with its status for `mica status`
// and results that are made once.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/progress.h"
#include "compress/pipeline.h"
#include "eval/measure/evaluate.h"
#include "experiment/experiment.h"
#include "record/evaluation.h"
#include "record/status.h"

namespace mica {

// In its directory: the experiment as it was run last, and how far it is.
inline constexpr const char* kExperimentFile = "experiment.json";
inline constexpr const char* kStatusFile = "status.json";

// Throws Error when the directory of the experiment is an input, or holds something else.
void CheckDirectory(const Experiment& experiment);

class ExperimentDirectory {
 public:
  // Makes the directory or goes on in it, after everything has been checked that can be before work begins:
  // models, texts, tokenizer, what is to be measured, `compression`, and that no text is calibration text and
  // evaluation text; keeps other processes out as long as this lives. Throws Error, also when one is at work
  // there or when it holds other files. The experiment must outlive this.
  ExperimentDirectory(const Experiment& experiment, const CompressionSettings& compression, bool quiet);

  const std::filesystem::path& path() const { return experiment_.directory; }
  Progress& progress() { return progress_; }
  StatusFile& status() { return status_; }
  const Experiment& experiment() const { return experiment_; }
  // Of the samples that the experiment asks for.
  const std::vector<SamplePrompt>& prompts() const { return prompts_; }

  // Throws Error when a text that is measured is one that `compression` is calibrated on, unless the experiment allows
  // it. Before the original is measured.
  void CheckTexts(const CompressionSettings& compression);

  // What is being done, for `mica status`. Throws Interrupted after Ctrl-C.
  void Stage(const std::string& name);

  // The compression: CompressModel, or the search for what keeps `quality`, which measures as Evaluated does and leaves
  // what it has found of the file that it takes under the name `result`.
  void Compress(const CompressionPaths& paths, const CompressionSettings& settings,
                const std::optional<QualityBudget>& quality, const std::string& result);

  // The evaluation of a checkpoint, kept in the file `result`: made now, or read back when it was made of the
  // same model, tokenizer, texts, settings and code; throws Error naming what differs when it was not. Others
  // than the original model's are measured against it where the experiment says so, and tell of the tokens
  // that lost most where the losses of its tokens have been kept.
  EvaluationRecord Evaluated(const std::string& stage, const std::filesystem::path& model,
                             const std::string& result);

 private:
  EvaluationRequest RequestOf(const std::filesystem::path& model) const;
  // The kept losses of the original's tokens; none where they are not those of its result.
  TokenLosses OriginalLosses() const;

  const Experiment& experiment_;
  std::shared_ptr<PassedWindows> passed_;  // by the original, where several models are measured against it
  std::optional<Evaluation> original_;     // of the original model, prepared
  std::vector<SamplePrompt> prompts_;
  std::unique_ptr<FileLock> lock_;
  StatusFile status_;
  Progress progress_;
};

}  // namespace mica
