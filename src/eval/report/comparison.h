// A compressed model's result file against its baseline's: the numbers, without words. Report renderers turn
// them into documents.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/shell.h"
#include "record/evaluation.h"

namespace mica {

// One text on one side; what a file does not say is absent.
struct SetFigures {
  std::optional<double> log_perplexity;     // nats per token; all else follows from it
  std::optional<double> perplexity;         // infinite where it is beyond a number
  std::optional<double> seconds;            // in all
  std::optional<double> tokens_per_second;  // of the model's own pass
  std::optional<double> bits_per_byte;
  std::string error;  // why it was not measured, when the file says so ("out of memory")
};

// Tokens that occur equally often in the text (eval/token_classes.h).
struct ClassComparison {
  uint64_t from = 1, to = 0;  // occurrences; to 0: no end
  double share = 0;           // of the scored tokens
  double baseline_nll = 0;    // mean of these tokens, nats
  double excess_nats = 0;     // by which the compressed model's mean is higher
  double loss_share = 0;      // of the set's excess that falls on these tokens; 0 when the set lost nothing
};

struct SetComparison {
  std::string name;
  SetFigures baseline, compressed;
  // Present when both perplexities are; the first two as they are shown, RateExcess has the rule.
  std::optional<double> change_percent;  // 100 (PPL - PPL_base) / PPL_base
  std::optional<double> retention;       // 100 (1 - (PPL - PPL_base) / PPL_base), percent; may be negative
  std::optional<double> excess_nats;     // ln(PPL / PPL_base), nats per token
  std::optional<double> excess_error;    // its standard error: of the mean over windows of the difference
  // Where the compressed model was measured against a reference (eval/perplexity.h).
  std::optional<double> kl, kl_error;    // nats per token, and its standard error
  std::optional<double> same_top;        // share of tokens
  std::vector<ClassComparison> classes;  // of tokens, where both files have them
  int stars = 0;                         // 5 from 95 % retention, 4 from 90, 3 from 85, else 2; 0: not rated
};

// Shares of one row of the histogram of widths ("self_attn.q_proj", or a range of layers).
struct WidthRow {
  std::string label;
  std::map<int, double>
      share;  // width in bits -> share of the weights; sums to 1, or empty when the widths are not recorded
  std::optional<double> mean_bits;       // mean code bits per weight
  std::optional<double> zero_share;      // of the weights
  std::optional<double> silhouette;      // of the grouping, mean over the matrices
  std::optional<double> information;     // nats of a channel with all others, mean over the matrices
  std::optional<double> relative_error;  // mean over the matrices
  std::map<std::string, uint64_t>
      types;  // matrices by their type in another program's format ("Q4_K"), or empty
};

struct CompressionFigures {
  std::optional<double> bytes_before, bytes_after, ratio;  // weight files on disk; ratio = before / after
  std::optional<double> mean_code_bits, bits_per_weight, compressed_weights, zero_share;
  std::vector<std::pair<std::string, double>> parts;  // every byte of the packed directory by what it is for
  std::map<int, double> widths;                       // width -> share of the compressed weights
  std::vector<WidthRow> by_type;                      // one per kind of linear layer
  std::vector<WidthRow> by_depth;  // at most 16 ranges of layers, first to last; labels "0", "2-3"
};

enum class AdviceKind {
  kMeasure,      // a set lacks one side
  kRoom,         // every set keeps 95 %: a smaller budget is worth a try
  kSparsity,     // forced zeros cost more than the widths
  kPattern,      // n:m pattern
  kBudget,       // too few bits
  kCalibration,  // one set loses much more than the others and nothing of its kind was calibrated on
  kSamples,      // too few calibration tokens for the widest layer
};
const char* AdviceName(AdviceKind kind);  // "measure", "room", ...

struct Advice {
  AdviceKind kind = AdviceKind::kMeasure;
  std::string set;       // the set it is about, where it is about one
  double found = 0;      // the figure that limits: nats, sparsity, bits or tokens per column
  double suggested = 0;  // what the command sets it to, or is likely to find
  ShellCommand
      command;  // the exact command to try next; MODEL, OUT and FILE stand where the result files do not say
  bool guess =
      false;   // of a budget: the command tries one, as the texts of a search for quality are not known
  Json sweep;  // "sweep" of an experiment that shows the whole of it; null: none does
};

// What half a bit less and more for each compressed weight would do.
struct SizeSlope {
  struct Step {
    double bytes = 0;  // of the weight files
    double loss = 0;   // nats a token, of the text that is worst
  };
  double factor = 0;      // by which the loss falls with each bit
  bool measured = false;  // on the compressions of a search, else what is usual
  bool by_kl = false;     // the loss is a divergence, else the excess
  Step now, smaller, larger;
};

struct Comparison {
  EvaluationRecord baseline, compressed;  // the two results; what a file does not say is absent
  std::string baseline_path, compressed_path;
  std::vector<SetComparison>
      sets;  // in the order of the baseline, then those that only the compressed result has
  std::vector<std::string>
      differences;  // why the two should not be compared (in English, one clause each); empty unless forced
  std::optional<CompressionFigures> compression;  // where the compressed result is of a packed model
  std::optional<double> worst_retention;
  std::string worst_set;
  int stars = 0;                   // of the worst set; 0 when no set was measured on both sides
  std::vector<Advice> advice;      // most useful first
  std::optional<SizeSlope> slope;  // where size, weights and a loss are known
};

// A change of perplexity from here on is given as this much, in percent: the model is destroyed.
inline constexpr double kMostChange = 100'000;
inline constexpr double kLeastRetention = 100 - kMostChange;

struct Rating {
  double retention = 0;  // percent, in whole tenths as it is shown
  int stars = 0;         // of that figure: 5 from 95 %, 4 from 90, 3 from 85, else 2
};
// Retention 100 (2 - e^excess_nats), rounded once and then rated; at least kLeastRetention.
Rating RateExcess(double excess_nats);

// Compares two results, of `mica eval` or of another program. Results of different convention, seqlen, dtype,
// special tokens, number of windows, evaluation text or original model are refused with an Error, unless
// `force`: then the differences are listed in the comparison. What a file does not record is not compared.
Comparison Compare(const EvaluationRecord& baseline, const std::string& baseline_path,
                   const EvaluationRecord& compressed, const std::string& compressed_path,
                   bool force = false);

// The numbers of the comparison, for programs.
Json ComparisonJson(const Comparison& comparison);

}  // namespace mica
