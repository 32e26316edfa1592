// One evaluation, from a checkpoint directory and text files to the record of it: what was measured, on what,
// how and at what cost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "device/precision.h"
#include "eval/measure/lost_tokens.h"
#include "eval/measure/perplexity.h"
#include "eval/measure/samples.h"
#include "io/text/datasets.h"
#include "model/bos.h"
#include "record/evaluation.h"

namespace mica {

struct EvaluationRequest {
  std::filesystem::path model;      // plain or packed checkpoint
  std::filesystem::path tokenizer;  // a directory with one, or a tokenizer.model; empty: the model's own
  std::filesystem::path reference;  // checkpoint to measure the divergence from; empty: none
  std::vector<DataSpec> data;       // at least one; names must differ
  Convention convention = Convention::kGptq;
  std::optional<BosPlace> bos;   // none: what suits the model (model/bos.h)
  std::optional<size_t> seqlen;  // tokens of a window; none: what suits the model (model/window.h)
  size_t max_windows = 0;        // per set; 0: all
  bool special_tokens =
      false;  // "<unk>" and the like in a text become control ids, as Hugging Face's tokenizer does it
  std::optional<Precision> precision;  // none: the fastest of the device
  bool as_running = false;             // layers in the form that a running model keeps (model/running_model.h)
  Device device{};
  const Group* group = &Group::Alone();  // the ranks that measure together; this one leads
  std::optional<uint64_t> activation_bytes;  // none: what suits the device
  // Streams of earlier evaluations and of this one; empty: none are kept. They count for one rank that is alone.
  std::shared_ptr<PassedWindows> passed;
  bool force = false;                        // a packed model may be measured on a text it was calibrated on
  uint64_t seed = 0;                         // recorded; evaluation itself draws nothing at random
};

// An evaluation in three steps, so that what it would be made of is known before its figures are.
class Evaluation {
 public:
  // Opens the models and the tokenizer; reads, tokenises and cuts every text, so that a fault in the last
  // file costs no time; checks that what is asked for can be computed. A packed model is not measured on a
  // text that it was calibrated on, unless forced: that would flatter it. Throws Error.
  explicit Evaluation(const EvaluationRequest& request);
  ~Evaluation();
  Evaluation(Evaluation&&) noexcept;

  // The record without its figures: models (their weights are read once for the fingerprints), settings,
  // texts. Its EvaluationIdentity is that of the result.
  const EvaluationRecord& Describe();
  // The record. Tells `progress` each perplexity. With the losses of the original model on the same sets it
  // tells of the tokens that lost most. Called once.
  EvaluationRecord Measure(Progress& progress, const TokenLosses* original = nullptr);
  // Of the sets that Measure has measured.
  const TokenLosses& losses() const;
  // The prompts of samples: those that are given, or some that are cut from the windows of all sets in turn by
  // the seed. Before Measure is called. Throws Error as GivenPrompts does.
  std::vector<SamplePrompt> Prompts(const SampleSettings& settings) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// All steps of an evaluation.
EvaluationRecord Evaluate(const EvaluationRequest& request, Progress& progress);

// What Evaluate returned as an aligned table with a heading and a footing, for a terminal.
std::string SummaryTable(const EvaluationRecord& result);

}  // namespace mica
