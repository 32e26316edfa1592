// What a sweep has found: figures of each point, their means over seeds, the front of those that no other
// beats, without words. Documents and sweep.json are made of it.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "eval/report/comparison.h"
#include "record/compression.h"

namespace mica {

// Of several texts, those of the one that fares worst.
struct SweepFigures {
  std::optional<double> bytes;            // of the weight files
  std::optional<double> bits_per_weight;  // all stored bits of the compressed matrices over their weights
  std::optional<double> kl;               // nats a token, the largest
  std::optional<double> excess;           // nats a token, the largest
  std::optional<double> retention;        // percent, the least
  std::optional<double> same_top;         // share of tokens, the least
  std::optional<double> compress_seconds, evaluate_seconds;
  std::optional<double> memory_bytes;  // the most that compressing took of the processor's memory
  std::optional<double> device_bytes;  // of the GPU's
};

// Stored bits per weight of some matrices: a kind of linear layer, or a range of layers.
using Rates = std::vector<std::pair<std::string, double>>;

// A point, compressed and measured.
struct SweepRun {
  std::string name;      // its directory
  Ordered<Json> values;  // of the options that it is told apart by
  SweepFigures figures;
  Ordered<SweepFigures> sets;  // kl, excess, retention and same_top of each text
  Rates by_type, by_depth;
  std::optional<double> aimed_kl, aimed_retention;  // of a budget stated as quality
};

// Points that differ in nothing but the seed.
struct SweepSetting {
  std::string label;         // "bpw 2.5, sparsity 0.5"
  std::string series;        // the same without the budget: one line of a plot
  std::vector<size_t> runs;  // in SweepSummary::runs
  SweepFigures mean, deviation;  // the latter of a single point, where there are at least two
  Rates by_type, by_depth;       // means
  bool front = false;            // none is both smaller and better
};

// A file of another program, or a model that was measured beside the points.
struct SweepOtherFile {
  std::string name, path;
  SweepFigures figures;
};

struct SweepSummary {
  std::string name, model;
  Program program;
  SweepFigures baseline;  // bytes
  std::vector<SweepRun> runs;
  std::vector<SweepSetting> settings;  // in the order of their first points
  std::vector<SweepOtherFile> others;
  bool by_kl = false;  // every setting has a divergence: the front is by that, else by excess
  std::optional<double> shared_seconds;  // of statistics and baseline, which points share
};

// What the comparison of a point with the baseline says of it. Values and name are the caller's.
SweepRun RunOf(const Comparison& comparison);
// Figures of a result that stands beside the points; bytes and bits as far as it says them.
SweepFigures FiguresBeside(const Comparison& comparison);

// Which of the pairs (cost, loss) no other pair beats: none is at most as large in both and smaller in one. Pairs with
// an absent member are on no front.
std::vector<bool> ParetoFront(const std::vector<std::pair<std::optional<double>, std::optional<double>>>& pairs);

// What a point is called among the settings: its values without the seed, "bpw 2.5, sparsity 0.5".
std::string SettingLabel(const Ordered<Json>& values);
// Fills settings and by_kl from the runs.
void SumUp(SweepSummary& summary);
// Of a setting, what the front is by: nats a token.
std::optional<double> LossOf(const SweepSummary& summary, const SweepFigures& figures);

// Least squares of ln(loss) over bits per weight.
struct LossLaw {
  double factor = 0;  // by which the loss falls with each bit
  size_t points = 0;
};
// Of the points of a series that have a positive loss; absent with fewer than two, and where they have one rate.
std::optional<LossLaw> LawOf(const SweepSummary& summary, const std::string& series);

// The content of sweep.json. kept: whether the packed file of a run is there.
Json SweepJson(const SweepSummary& summary, const std::vector<bool>& kept);

}  // namespace mica
