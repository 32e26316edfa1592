// k-means with seeded starts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix.h"

namespace mica {

struct KmeansResult {
  std::vector<uint32_t> group;  // [n], 0 .. groups - 1, none empty
  double inertia = 0;           // sum of squared distances to the centres of their groups
};

// The best of eight runs of Lloyd's algorithm from greedy k-means++ starts (Arthur, Vassilvitskii 2007), at
// most 100 steps each; the first of equally good ones. A group that loses all its points takes the point
// farthest from its centre. points: [n, dimensions]; 1 <= groups <= n. Deterministic for a seed, on any
// number of threads (runs are spread over them).
KmeansResult Kmeans(MatrixView<const float> points, size_t groups, uint64_t seed);

}  // namespace mica
