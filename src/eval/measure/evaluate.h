// One evaluation, from a checkpoint directory and text files to the result file: what was measured, on what,
// how and at what cost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/progress.h"
#include "device/precision.h"
#include "eval/measure/perplexity.h"
#include "io/text/datasets.h"

namespace mica {

struct EvaluationRequest {
  std::filesystem::path model;      // plain or packed checkpoint
  std::filesystem::path reference;  // checkpoint to measure the divergence from; empty: none
  std::vector<DataSpec> data;       // at least one; names must differ
  Convention convention = Convention::kGptq;
  size_t seqlen = 0;       // tokens of a window; 0: the smaller of 2048 and the model's positions
  size_t max_windows = 0;  // per set; 0: all
  bool special_tokens =
      false;  // "<unk>" and the like in a text become control ids, as Hugging Face's tokenizer does it
  std::optional<Precision> precision;  // none: the fastest of this machine
  uint64_t activation_bytes = PerplexitySettings().activation_bytes;
  bool force = false;  // a packed model may be measured on a text it was calibrated on
  uint64_t seed = 0;   // recorded; evaluation itself draws nothing at random
};

// Evaluates and returns the content of the result file:
//   mica {version, commit}; created; model {path, fingerprint, architecture {...}, parameters, file_bytes,
//   layout, compression (packed only: the content of its compression.json)}; reference (only with one: {path,
//   fingerprint}); settings {convention, seqlen,
//   dtype, max_windows (null: all), special_tokens, threads, seed, device}; host {name, processor}; datasets
//   {NAME: {ppl, time (seconds), nll (nats per token), bits_per_byte, tokens, scored_tokens, windows,
//   window_nll [nats per token of each window], by_occurrence [{from, to (occurrences of a token in the
//   windows, 0: no end), tokens, nll}], divergence (with a reference: {kl (nats per token), standard_error
//   (of its mean over windows), same_top (share)}), text_tokens, tokens_per_second, data {kind, path, sha256,
//   bytes}}}; time {phase: seconds}; peak_memory_bytes.
// bits_per_byte = nats of the scored tokens / ln 2 / bytes of text those tokens stand for
// (Tokenizer::PieceBytes). Every text is read, tokenised and cut before the first window is computed, so that
// a fault in the last file costs no time. A packed model is not measured on a text (by its SHA-256) that it
// was calibrated on, unless forced: that would flatter it. Throws Error.
Json Evaluate(const EvaluationRequest& request, Progress& progress);

// The result as an aligned table with a heading and a footing, for a terminal.
std::string SummaryTable(const Json& result);

}  // namespace mica
