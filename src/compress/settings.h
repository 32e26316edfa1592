// Everything that decides what a compression does. The options that set it are declared in record/options.h;
// here each is bound to its member.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "compress/blocks/storage_target.h"
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

// Bits of embedding and head that are chosen with those of the matrices, under one budget of file bytes.
inline constexpr int kSharedBits = 0;

struct CompressionSettings {
  CalibrationSettings calibration;
  InformationSettings information;
  FisherSettings fisher;  // what follows from other settings is set where it is used (compression.cc)
  DriftSettings drift;
  double damping = 0.03;  // of the moments, times each channel's energy
  Budget budget;
  SparsityPattern sparsity;
  Coding coding = Coding::kFixed;
  FixedSettings fixed;
  EntropySettings entropy;
  GgufSettings gguf;
  CompressedTensorsSettings compressed_tensors;
  int embedding_bits = 8;  // of embedding and output head: 2, 3, 4, 6, 8 or 16, or kSharedBits
  Arithmetic arithmetic = Precision::kBf16;
  uint64_t seed = 0;
};

// Throws Error naming the option, its value and what is possible.
void CheckSettings(const CompressionSettings& settings);
// Whether an option was given, asked by its name on the command line without the dashes in front.
using Given = std::function<bool(const std::string& name)>;
// The options that the keys of a JSON object give ("drift_windows" is drift-windows). Refers to `json`.
Given GivenIn(const Json& json);
// Sets what follows from other settings and was not given itself: channels are grouped where groups or an
// estimator of their information were asked for, a mean of 16 bits is width 16 alone, and compressed-tensors
// keeps embedding and head in 16 bits.
void CompleteSettings(CompressionSettings& settings, const Given& given);
// Throws Error for an option that was given and would change nothing under these settings, such as --lambda
// with coding `fixed`.
void RefuseIdleOptions(const CompressionSettings& settings, const Given& given);

// The settings that change anything, as compression.json and experiment files hold them (without the
// calibration texts' fingerprints).
Json SettingsToJson(const CompressionSettings& settings);
// Reads an experiment file's "compress" object, or one that flags were collected in; unknown keys and values
// that an option cannot have throw Error naming them and `where`. Relative paths stay as they are.
CompressionSettings SettingsFromJson(const Json& json, const std::string& where);

// Sets every option that has a value of its own in preset "fast", "balanced" or "best" to what it decides for
// settings.coding.
void ApplyPreset(const std::string& preset, CompressionSettings& settings);

}  // namespace mica
