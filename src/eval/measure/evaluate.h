// One evaluation, from a checkpoint directory and text files to the record of it: what was measured, on what,
// how and at what cost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "device/precision.h"
#include "eval/measure/perplexity.h"
#include "io/text/datasets.h"
#include "record/evaluation.h"

namespace mica {

// Tokens of a window where no number is given and the model has as many positions.
inline constexpr size_t kUsualWindow = 2048;

struct EvaluationRequest {
  std::filesystem::path model;      // plain or packed checkpoint
  std::filesystem::path reference;  // checkpoint to measure the divergence from; empty: none
  std::vector<DataSpec> data;       // at least one; names must differ
  Convention convention = Convention::kGptq;
  size_t seqlen = 0;       // tokens of a window; 0: the smaller of kUsualWindow and the model's positions
  size_t max_windows = 0;  // per set; 0: all
  bool special_tokens =
      false;  // "<unk>" and the like in a text become control ids, as Hugging Face's tokenizer does it
  std::optional<Precision> precision;  // none: the fastest of this machine
  uint64_t activation_bytes = PerplexitySettings().activation_bytes;
  bool force = false;  // a packed model may be measured on a text it was calibrated on
  uint64_t seed = 0;   // recorded; evaluation itself draws nothing at random
};

// Every text is read, tokenised and cut before the first window is computed, so that a fault in the last file
// costs no time. A packed model is not measured on a text (by its SHA-256) that it was calibrated on, unless
// forced: that would flatter it. Tells `progress` each perplexity. Throws Error.
EvaluationRecord Evaluate(const EvaluationRequest& request, Progress& progress);

// What Evaluate returned as an aligned table with a heading and a footing, for a terminal.
std::string SummaryTable(const EvaluationRecord& result);

}  // namespace mica
