// What mutual information is worth: the experiment's model compressed at equal stored bits with and without
// it, with every clustering and estimator, and measured from the packed files.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "compress/settings.h"
#include "experiment/experiment.h"

namespace mica {

struct Variant {
  std::string name;  // "spectral, 5 groups"; its directory's name is made of it
  CompressionSettings compression;
};

// One width for all columns, widths by the weights only, by energy only, conditional information, and
// clusters by every method, number of groups and estimator, all in coding `fixed`; last coding `entropy`.
// Throws Error unless the budget is stored bits per weight and large enough for a single width.
std::vector<Variant> AblationVariants(const CompressionSettings& settings);

// Runs what is not done yet in the experiment's directory: baseline.json, VARIANT/ (packed), VARIANT.json,
// then ablation.json and ablation.md, whose content is printed unless `quiet`: bits, silhouette, excess nats
// of every set and their mean, and the mean divergence where the experiment asks for it. Returns
// ablation.json.
Json RunAblation(const Experiment& experiment, bool quiet);

}  // namespace mica
