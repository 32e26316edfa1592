// Average linkage: the hierarchy of clusters that merges the two of least mean distance again and again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/matrix.h"

namespace mica {

// Distance of two clusters = mean of 1 - affinity over their pairs of channels. Built by chains of nearest
// neighbours (Murtagh 1983): O(n^2) steps and n (n - 1) / 2 FP32 distances, 382 MB at 13,824 channels. Equal
// distances go to the lowest channel. One thread.
class AverageLinkage {
 public:
  // affinity: [n, n] symmetric, the lower triangle is read.
  explicit AverageLinkage(MatrixView<const float> affinity);

  // The clusters when `groups` are left, 1 <= groups <= n: [n], 0 .. groups - 1.
  std::vector<uint32_t> Cut(size_t groups) const;
  // [n - 1] distances at which clusters merge, rising.
  std::vector<float> Heights() const;

 private:
  struct Merge {
    uint32_t first, second;  // a channel of each cluster
    float height;
  };
  size_t channels_;
  std::vector<Merge> merges_;  // by rising height
};

}  // namespace mica
