// Looks for the smallest file that keeps a promise of quality: compress, measure the packed file, fit, aim again.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/progress.h"
#include "compress/pipeline.h"
#include "compress/settings.h"
#include "eval/measure/evaluate.h"
#include "experiment/quality/quality_budget.h"
#include "record/compression.h"
#include "record/evaluation.h"

namespace mica {

struct QualityTask {
  CompressionPaths paths;        // out: where the file that is taken goes; statistics are kept where they say
  std::filesystem::path work;    // directory of the search, which goes on there after a stop and is gone in the end
  std::filesystem::path result;  // file that the measurement of what is taken is kept in; empty: none
  CompressionSettings settings;  // all but the budget
  QualityBudget budget;
  // Of the packed files, but for the model; with the original as reference where the budget is a divergence.
  EvaluationRequest evaluation;
  std::filesystem::path baseline;  // result of the original, kept; measured where a retention needs it
  std::function<void(const std::string& stage)> stage = {};  // told what is being done
};

// Settings to begin the search with: a budget that the model allows and that is likely to be near.
CompressionSettings FirstSettings(const CompressionPaths& paths, CompressionSettings settings,
                                  const QualityBudget& budget);

// The record of what was taken, which says of the search in `quality`; where the same was found before, its
// record. Throws Error when a text is calibrated on, and when the promise cannot be kept, with the best that
// can.
CompressionRecord CompressToQuality(const QualityTask& task, Progress& progress);

// "aimed at a KL of at most 0.01: measured 0.0097 (c4) with 2 compressions, 1.2 % above the law".
std::string QualityText(const QualityRecord& quality);

}  // namespace mica
