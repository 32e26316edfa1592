#include "compress/inform/linkage.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/threads.h"

namespace mica {
namespace {

// Distances of pairs i > j, row by row.
class PairDistances {
 public:
  explicit PairDistances(MatrixView<const float> affinity)
      : values_(1, affinity.rows * (affinity.rows - 1) / 2) {
    ParallelFor(affinity.rows, [&](size_t i) {
      for (size_t j = 0; j < i; ++j) (*this)(i, j) = 1.0f - affinity(i, j);
    });
  }
  float& operator()(size_t i, size_t j) {
    if (i < j) std::swap(i, j);
    return values_.data()[i * (i - 1) / 2 + j];
  }

 private:
  Matrix<float> values_;
};

}  // namespace

AverageLinkage::AverageLinkage(MatrixView<const float> affinity) : channels_(affinity.rows) {
  MICA_CHECK(affinity.rows > 0);
  MICA_CHECK(affinity.cols == affinity.rows);
  PairDistances distance(affinity);
  // A cluster goes by its lowest channel.
  std::vector<uint32_t> active(channels_);
  std::iota(active.begin(), active.end(), 0u);
  std::vector<uint32_t> size(channels_, 1);
  std::vector<uint32_t> chain;  // each the nearest of the one before
  while (active.size() > 1) {
    if (chain.empty()) chain.push_back(active[0]);
    const uint32_t tip = chain.back();
    uint32_t nearest = tip;
    float least = 0;
    if (chain.size() > 1) {  // on equal distance the chain turns back and ends
      nearest = chain[chain.size() - 2];
      least = distance(tip, nearest);
    }
    for (const uint32_t other : active) {
      if (other == tip) continue;
      const float d = distance(tip, other);
      if (nearest == tip || d < least) {
        nearest = other;
        least = d;
      }
    }
    if (chain.size() < 2 || nearest != chain[chain.size() - 2]) {
      MICA_CHECK(chain.size() < active.size());
      chain.push_back(nearest);
      continue;
    }
    chain.resize(chain.size() - 2);
    const uint32_t kept = std::min(tip, nearest), gone = std::max(tip, nearest);
    merges_.push_back({kept, gone, least});
    active.erase(std::lower_bound(active.begin(), active.end(), gone));
    const float share = static_cast<float>(size[kept]) / static_cast<float>(size[kept] + size[gone]);
    size[kept] += size[gone];
    for (const uint32_t other : active) {
      if (other == kept) continue;
      float& to_kept = distance(other, kept);
      const float to_gone = distance(other, gone);
      // Between the two also after rounding: otherwise chains could close into rings.
      to_kept = std::clamp(share * to_kept + (1.0f - share) * to_gone, std::min(to_kept, to_gone),
                           std::max(to_kept, to_gone));
    }
  }
  // Chains find merges out of order; a cluster's own merges keep theirs, as heights never fall from child to
  // parent.
  std::stable_sort(merges_.begin(), merges_.end(),
                   [](const Merge& a, const Merge& b) { return a.height < b.height; });
}

std::vector<uint32_t> AverageLinkage::Cut(size_t groups) const {
  MICA_CHECK(groups >= 1);
  MICA_CHECK(groups <= channels_);
  std::vector<uint32_t> parent(channels_);
  std::iota(parent.begin(), parent.end(), 0u);
  const auto root = [&](uint32_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  for (size_t m = 0; m + groups < channels_; ++m) {
    const uint32_t a = root(merges_[m].first), b = root(merges_[m].second);
    parent[std::max(a, b)] = std::min(a, b);
  }
  std::vector<uint32_t> group(channels_);
  uint32_t used = 0;
  for (uint32_t i = 0; i < channels_; ++i) {
    const uint32_t r = root(i);
    group[i] = r == i ? used++ : group[r];  // a root is its cluster's lowest channel
  }
  MICA_CHECK(used == groups);
  return group;
}

std::vector<float> AverageLinkage::Heights() const {
  std::vector<float> heights;
  for (const Merge& merge : merges_) heights.push_back(merge.height);
  return heights;
}

}  // namespace mica
