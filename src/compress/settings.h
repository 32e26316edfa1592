// Everything that decides what a compression does, in one place: flags of `mica compress` and keys of an
// experiment file alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "compress/budget/budget.h"
#include "compress/calibrate/calibration.h"
#include "compress/coder/coding.h"
#include "compress/curvature/drift_compensation.h"
#include "compress/curvature/fisher.h"
#include "compress/entropy/solver.h"
#include "compress/fixed/solver.h"
#include "compress/inform/statistics.h"
#include "device/precision.h"
#include "format/mask/sparsity_pattern.h"

namespace mica {

// How much time is given for how good a result (docs/performance.md has the times).
enum class Preset {
  kFast,      // one model's pass: no drift compensation, no feedback over rows, no trellis
  kBalanced,  // the defaults below
  kBest       // twice the windows for all that is measured, and for fixed widths twice the refinement
};

struct CompressionSettings {
  CalibrationSettings calibration;
  InformationSettings information;
  FisherSettings fisher = {.windows =
                               16};  // what follows from other settings is set where it is used (pipeline.cc)
  DriftSettings drift;
  double damping = 0.01;  // of the moments, times their mean diagonal
  Budget budget;
  SparsityPattern sparsity;
  Coding coding = Coding::kFixed;
  FixedSettings fixed;
  EntropySettings entropy;
  int embedding_bits = 8;  // of embedding and output head: 2, 3, 4, 6, 8 or 16
  Precision precision = Precision::kBf16;
  uint64_t seed = 0;
};

// Throws Error naming the setting, the value and what is possible.
void CheckSettings(const CompressionSettings& settings);
// Whether an option was given, asked by its name on the command line without the dashes in front.
using Given = std::function<bool(const std::string& name)>;
// The options that the keys of a JSON object give ("drift_windows" is drift-windows). Refers to `json`.
Given GivenIn(const Json& json);
// Sets what follows from other settings and was not given itself: channels are grouped where groups or an
// estimator of their information were asked for, and a mean of 16 bits is width 16 alone.
void CompleteSettings(CompressionSettings& settings, const Given& given);
// Throws Error for an option that was given and would change nothing under these settings, such as --lambda
// with coding `fixed`.
void RefuseIdleOptions(const CompressionSettings& settings, const Given& given);

// The settings that change anything, as compression.json and experiment files hold them (without the
// calibration texts' fingerprints).
Json SettingsToJson(const CompressionSettings& settings);
// Reads an experiment file's "compress" object; unknown keys throw Error naming them and `where`. Relative
// paths stay as they are.
CompressionSettings SettingsFromJson(const Json& json, const std::string& where);

Preset ParsePreset(const std::string& name);  // "fast", "balanced", "best"
// Sets what the preset decides for settings.coding: trellis, lambda, row_feedback, refine_passes,
// statistics_windows, drift_compensation, drift_windows and fisher_windows.
void ApplyPreset(Preset preset, CompressionSettings& settings);
Coding ParseCoding(const std::string& name);  // "fixed", "entropy"
SparsityPattern ParseSparsity(double rate,
                              const std::string& pattern);  // pattern "unstructured", "2:4", "4:8"
}  // namespace mica
