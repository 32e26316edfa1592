// Results of evaluations that are kept in files, and used again when they were made of the same.
#pragma once

#include <filesystem>

#include "base/progress.h"
#include "eval/measure/evaluate.h"
#include "record/evaluation.h"

namespace mica {

// The evaluation's result, kept in the file `kept`: measured now, or read back when it was made of the same
// model, tokenizer, texts, settings and code. Throws Error naming what differs when it was not. When it is measured:
// with the losses `original` of the original's tokens it tells of those that lost most, and the losses of its own
// tokens go to the file `losses` first, unless that is empty.
EvaluationRecord MeasuredOnce(Evaluation& evaluation, const std::filesystem::path& kept, Progress& progress,
                              const TokenLosses* original = nullptr, const std::filesystem::path& losses = {});

}  // namespace mica
