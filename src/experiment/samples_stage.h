// The stage of a run that lets both models continue the same prompts.
#pragma once

#include <filesystem>

#include "experiment/experiment_directory.h"
#include "record/evaluation.h"

namespace mica {

// Brings the samples of compressed.samples up to what the experiment asks for: those that are there stay when
// they were made of the same models, prompts and code, others are taken anew, and where none are asked for there
// are none afterwards. Returns whether the record has changed. Samples are an extra: where a model does not fit
// into memory as a whole, which an evaluation does not need, the record says so in their place. Throws Error
// where a model is damaged, Interrupted after Ctrl-C.
bool TakeSamples(ExperimentDirectory& directory, const EvaluationRecord& baseline,
                 const std::filesystem::path& packed, EvaluationRecord& compressed);

}  // namespace mica
