// An experiment file and the directory it runs in: baseline, compress, evaluate, compare; each stage's result
// stays, so a run that was stopped goes on where it was.
#pragma once

#include <filesystem>
#include <string>

#include "compress/settings.h"
#include "eval/measure/evaluate.h"
#include "eval/measure/samples.h"
#include "eval/report/comparison.h"
#include "experiment/expectations.h"

namespace mica {

struct Experiment {
  std::string name;
  std::filesystem::path directory;  // of the run
  EvaluationRequest evaluation;     // evaluation.model is the original checkpoint
  bool divergence = false;          // compressed models are measured against the original one, too
  CompressionSettings compression;
  bool force = false;  // evaluation texts may be calibration texts
  SampleSettings samples;
  Expectations expected;
  Json json;  // the file as read
};

// Reads an experiment file; relative paths in it are relative to its own directory. Unknown keys throw Error.
//   {"name", "model", "directory", "force": false,
//    "evaluate": {the keys of RequestFromJson, and "divergence": false},
//    "compress": {the keys of SettingsFromJson},
//    "samples": {"count": 12, "tokens": 32} or {"prompts": [texts], "tokens": 32},
//    "expect": {"layers", "hidden", "vocabulary", "parameters", "dtype", "lines": {path of a text: lines}}}
// "samples" and "expect" may be left out, and so may each of their keys.
Experiment ReadExperiment(const std::filesystem::path& path);
// The same for the content of a file that would be at `path`.
Experiment ExperimentFromJson(Json json, const std::filesystem::path& path);

// What a run leaves in its directory.
inline constexpr const char* kBaselineFile = "baseline.json";
inline constexpr const char* kCompressedFile = "compressed.json";
// The losses of the baseline's tokens (eval/measure/lost_tokens.h).
inline constexpr const char* kBaselineLossesFile = "baseline.losses";
inline constexpr const char* kComparisonFile = "comparison.json";
inline constexpr const char* kPackedDirectory = "packed";
inline constexpr const char* kStatisticsFile = "statistics.safetensors";

// Runs what is not done yet: DIR/baseline.json, DIR/packed/, DIR/compressed.json, samples within that, then
// DIR/comparison.{txt,md,html,json} and their Chinese twins comparison.zh.{txt,md,html}. DIR/status.json
// tells `mica status` how far it is. Prints the text report unless `quiet`.
Comparison RunExperiment(const Experiment& experiment, bool quiet);

}  // namespace mica
