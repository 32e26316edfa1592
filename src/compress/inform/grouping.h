// Groups of input channels that share a bit width.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "device/tensor.h"

namespace mica {

enum class GroupingMethod { kSpectral, kHierarchical, kKmeans, kWaterfill };
// "spectral", "hierarchical", "kmeans", "waterfill"; Error for anything else.
GroupingMethod ParseGroupingMethod(const std::string& name);
const char* GroupingMethodName(GroupingMethod method);

struct Grouping {
  // [n] group of each channel, 0 .. groups - 1, none empty, numbered by first channel.
  std::vector<uint32_t> group;
  size_t groups = 0;
  double silhouette = 0;  // Silhouette() below; 0 for a single group
};

// Groups channels by affinity: [n, n] normalised information in [0, 1], symmetric, FP32 on any device; its
// diagonal is not read. What is O(n^2) runs where the affinity lies, but for the linkage; what is O(n) on the
// processor. On a CUDA device affinities and their sums are rounded otherwise, so that a channel on the
// border between two groups may fall into the other one.
// groups 0 = the number between 2 and 20 of the largest silhouette (the smallest such number; 1 for n <= 2).
// Deterministic for a seed, on any number of threads. Throws Error for more groups than channels. Not for
// kWaterfill, which gives every channel its own width.
//
// - spectral: k-means on the rows, scaled to unit length, of the leading eigenvectors of D^-1/2 A D^-1/2,
//   that is of the least of the normalised Laplacian (Ng, Jordan, Weiss 2001); Lanczos, O(n * groups) memory.
// - hierarchical: average linkage on the distance 1 - affinity; 2 n^2 bytes of the processor's memory, and 4
//   n^2 more for a copy of what lies elsewhere.
// - kmeans: on the affinity's rows (above 256 channels on 128 seeded random projections of them), diagonal
//   taken as 1; 1 KiB a channel.
Grouping GroupChannels(ConstTensor affinity, GroupingMethod method, size_t groups, uint64_t seed);

// Mean silhouette (Rousseeuw 1987) (b - a) / max(a, b) over channels, a the mean distance 1 - affinity to the
// other channels of the same group, b the least mean distance to another group; 0 for channels alone in their
// group. Of more than 2048 channels a seeded choice of 2048 is scored, each against all channels. group: [n],
// every group of [0, groups) occupied.
double Silhouette(ConstTensor affinity, const std::vector<uint32_t>& group, size_t groups, uint64_t seed);

}  // namespace mica
