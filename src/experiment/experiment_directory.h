// The directory an experiment runs in: kept apart from other experiments, with its status for `mica status`
// and results that are made once.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/file.h"
#include "base/progress.h"
#include "experiment/experiment.h"
#include "record/evaluation.h"
#include "record/status.h"

namespace mica {

class ExperimentDirectory {
 public:
  // Makes the directory or goes on in it, and keeps other processes out as long as this lives. Throws Error
  // when one is at work there, when it holds another experiment or other files, or when a text is calibration
  // text and evaluation text. The experiment must outlive this.
  ExperimentDirectory(const Experiment& experiment, bool quiet);

  const std::filesystem::path& path() const { return experiment_.directory; }
  Progress& progress() { return progress_; }
  StatusFile& status() { return status_; }

  // What is being done, for `mica status`. Throws Interrupted after Ctrl-C.
  void Stage(const std::string& name);

  // The evaluation of a checkpoint, kept in the file `result`: made now or read back. Others than the
  // original model's are measured against it where the experiment says so.
  EvaluationRecord Evaluated(const std::string& stage, const std::filesystem::path& model,
                             const std::string& result);

 private:
  const Experiment& experiment_;
  const std::unique_ptr<FileLock> lock_;
  StatusFile status_;
  Progress progress_;
};

}  // namespace mica
