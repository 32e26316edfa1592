// What mutual information is worth: the experiment's model compressed at equal stored bits with and without
// it, with every clustering and estimator, and measured from the packed files.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "compress/settings.h"
#include "experiment/experiment.h"
#include "record/compression.h"

namespace mica {

struct Variant {
  std::string name;  // "spectral, 5 groups"; its directory's name is made of it
  CompressionSettings compression;
};

// One width for all columns, widths by the weights only, by energy only, conditional information, and
// clusters by every method, number of groups and estimator, all in coding `fixed`; last coding `entropy`.
// Throws Error unless the budget is stored bits per weight and large enough for a single width.
std::vector<Variant> AblationVariants(const CompressionSettings& settings);

// A variant, compressed and measured.
struct VariantResult {
  std::string name;
  bool clustered = false;
  double bits_per_weight = 0;  // stored
  double silhouette = 0;       // mean over the matrices
  double seconds = 0;          // of the compression
  struct Set {
    std::string name;
    double perplexity = 0;
    double excess_nats = 0;
    std::optional<double> kl;  // where the experiment asks for divergences
  };
  std::vector<Set> sets;
  double mean_excess_nats = 0;
  std::optional<double> mean_kl;
};

struct Ablation {
  Program program;  // that measured the baseline
  std::string model;
  double budget_bits_per_weight = 0;
  std::vector<VariantResult> rows;
};
// The content of ablation.json.
Json AblationJson(const Ablation& ablation);

// Runs what is not done yet in the experiment's directory: baseline.json, VARIANT/ (packed), VARIANT.json,
// then ablation.json and ablation.md, whose content is printed unless `quiet`: bits, silhouette, excess nats
// of every set and their mean, and the mean divergence where the experiment asks for it.
Ablation RunAblation(const Experiment& experiment, bool quiet);

}  // namespace mica
