// Everything that decides what a compression does, in one place: flags of `mica compress` and keys of an
// experiment file alike.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "compress/calibration.h"
#include "compress/grouping.h"
#include "compress/information.h"
#include "compress/solver.h"
#include "kernels/matmul.h"

namespace mica {

enum class Coding {
  kFixed,   // integer widths per column, what kernels read directly
  kEntropy  // a uniform grid whose steps follow from information, entropy-coded
};

enum class BudgetTarget {
  kMeanBits,       // mean code bits of the compressed matrices
  kBitsPerWeight,  // all stored bits of the compressed matrices over their weights
  kFileBytes       // bytes of the weight files
};

// How much time is given for how good a result (docs/performance.md has the times).
enum class Preset {
  kFast,      // one model's pass: no drift compensation, no feedback over rows, no trellis
  kBalanced,  // the defaults below
  kBest       // twice the windows for all that is measured, and for fixed widths twice the refinement
};

struct CompressionSettings {
  CalibrationSettings calibration;
  Coding coding = Coding::kFixed;
  BudgetTarget target = BudgetTarget::kMeanBits;
  double budget = 4.0;
  SparsityPattern sparsity;
  GroupingMethod grouping = GroupingMethod::kWaterfill;
  Estimator estimator = Estimator::kGaussian;
  size_t groups = 0;  // 0: chosen by silhouette
  std::vector<uint8_t> bit_options = {2, 3, 4, 6, 8};
  size_t group_size = 128;
  double damping = 0.01;
  double energy_weight = 1.0;       // exponent of a column's energy in its sensitivity: 0 ignores the inputs
  double information_weight = 1.0;  // a in sensitivity energy * exp(-2 a I): 0 ignores information
  double saliency_exponent = 1.0;   // the same a in the pruning score
  bool trellis = true;              // entropy coding: dependent quantisers along a trellis
  double lambda = 0.25;             // entropy coding: weight of bits against loss when an integer is chosen;
                                    // 1 is the slope of the high-rate law, 0 rounds to the nearest
  int refine_passes = 4;            // fixed coding: passes of coordinate descent after the feedback
  size_t statistics_windows = 16;   // calibration windows that allocation is based on
  double drift_compensation =
      0.5;  // of the drift of a matrix's inputs, 0 to 1 (drift.h); 0 saves the pass of the original model
  double drift_damping =
      0.03;  // of the moments where weights make up for drift, which is noisier than they are
  size_t drift_windows = 32;  // calibration windows on which it is measured
  size_t fisher_windows =
      16;  // 0: matrices are compared without Fisher information; presets take 8 for coding `fixed`
  bool sampled_labels = false;  // Fisher information with labels drawn from the model, not the text's own
  bool token_weights = false;   // tokens count by their gradients (needs fisher_windows >= samples)
  bool row_feedback =
      true;                // entropy coding: errors are absorbed by later rows as well (needs fisher_windows)
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
// "4.2e7", "40M", "1.5GB" -> bytes (powers of ten). Throws Error.
uint64_t ParseBytes(const std::string& text, const std::string& option);

}  // namespace mica
