// An experiment file and the directory it runs in: baseline, compress, evaluate, compare; each stage's result
// stays, so a run that was stopped goes on where it was.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "compress/settings.h"
#include "eval/measure/evaluate.h"
#include "eval/measure/samples.h"
#include "eval/report/comparison.h"
#include "experiment/expectations.h"
#include "experiment/quality/quality_budget.h"

namespace mica {

struct Experiment {
  std::string name;
  std::filesystem::path directory;  // of the run
  EvaluationRequest evaluation;     // evaluation.model is the original checkpoint
  bool divergence = false;          // compressed models are measured against the original one, too
  CompressionSettings compression;
  std::optional<QualityBudget> quality;  // in place of the budget, which is then the first to try
  bool force = false;  // evaluation texts may be calibration texts
  SampleSettings samples;
  Expectations expected;
  std::filesystem::path file;  // that it is of
  std::filesystem::path base;  // what relative paths in it are relative to
  Json sweep;                  // of a sweep (experiment/sweep/sweep_plan.h); null: none
  Json json;                   // the file as read
};

// Reads an experiment file; relative paths in it are relative to its own directory. Unknown keys throw Error.
//   {"name", "model", "directory", "force": false,
//    "evaluate": {the keys of RequestFromJson, and "divergence": false},
//    "compress": {the keys of SettingsFromJson},
//    "samples": {"count": 12, "tokens": 32} or {"prompts": [texts], "tokens": 32},
//    "expect": {"layers", "hidden", "vocabulary", "parameters", "dtype", "lines": {path of a text: lines}},
//    "sweep": {what `mica sweep` goes through}}
// "samples", "expect" and "sweep" may be left out, and so may each key of the first two.
Experiment ReadExperiment(const std::filesystem::path& path);
// The same for the content of a file that would be at `path`.
Experiment ExperimentFromJson(Json json, const std::filesystem::path& path);

// Settings of a compression as an experiment file has them, checked; relative paths of texts are relative to
// `base`. A budget of kind kl or retention is put into `quality`, unless that is null: then it is refused.
CompressionSettings CompressionFromJson(Json json, const std::string& where, const std::filesystem::path& base,
                                        std::optional<QualityBudget>* quality = nullptr);
// Throws Error for an experiment with a "sweep", which other commands than `mica sweep` would leave out.
void RefuseSweep(const Experiment& experiment);

// What a run leaves in its directory.
inline constexpr const char* kBaselineFile = "baseline.json";
inline constexpr const char* kCompressedFile = "compressed.json";
// The losses of the baseline's tokens (eval/measure/lost_tokens.h).
inline constexpr const char* kBaselineLossesFile = "baseline.losses";
inline constexpr const char* kComparisonFile = "comparison.json";
inline constexpr const char* kPackedDirectory = "packed";
inline constexpr const char* kSearchDirectory = "search";  // while a budget is looked for
inline constexpr const char* kStatisticsFile = "statistics.safetensors";

// Writes the comparison into a directory: comparison.{txt,md,html,json}, and comparison.zh.{txt,md,html} in
// Chinese. Returns the text report, as broad as the terminal.
std::string WriteComparison(const Comparison& comparison, const std::filesystem::path& directory);

// Runs what is not done yet: DIR/baseline.json, DIR/packed/, DIR/compressed.json, samples within that, then
// DIR/comparison.{txt,md,html,json} and their Chinese twins comparison.zh.{txt,md,html}. DIR/status.json
// tells `mica status` how far it is. Prints the text report unless `quiet`.
Comparison RunExperiment(const Experiment& experiment, bool quiet);

}  // namespace mica
