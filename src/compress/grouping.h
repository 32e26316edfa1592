// Groups of input channels that share a bit width.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/matrix.h"

namespace mica {

enum class GroupingMethod { kSpectral, kHierarchical, kKmeans, kWaterfill };
GroupingMethod ParseGroupingMethod(
    const std::string& name);  // "spectral", "hierarchical", "kmeans", "waterfill"
const char* GroupingMethodName(GroupingMethod method);

struct Grouping {
  std::vector<uint32_t> group;  // [n] group of each channel, 0 .. groups - 1, none empty
  size_t groups = 0;
  double silhouette = 0;  // mean silhouette over channels (of a seeded sample of at most 2048 channels),
                          // distance 1 - affinity
};

// affinity: [n, n] normalised information in [0, 1], symmetric. groups 0 = chosen between 2 and 20 by
// silhouette. Deterministic for a seed. Memory beyond the affinity: O(n * groups) (spectral, k-means), O(n^2)
// floats (hierarchical). Not for kWaterfill.
Grouping GroupChannels(MatrixView<const float> affinity, GroupingMethod method, size_t groups, uint64_t seed);

}  // namespace mica
