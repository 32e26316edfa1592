#include "compress/inform/kmeans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "base/error.h"
#include "base/threads.h"

namespace mica {
namespace {

constexpr size_t kRuns = 8;
constexpr int kSteps = 100;

double Uniform(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1p-53; }

float SquaredDistance(const float* a, const float* b, size_t dimensions) {
  constexpr size_t kSums = 8;  // interleaved, for vector units
  float sums[kSums] = {};
  size_t d = 0;
  for (; d + kSums <= dimensions; d += kSums) {
    for (size_t s = 0; s < kSums; ++s) sums[s] += (a[d + s] - b[d + s]) * (a[d + s] - b[d + s]);
  }
  for (; d < dimensions; ++d) sums[0] += (a[d] - b[d]) * (a[d] - b[d]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

constexpr size_t kLanes = 64;

// The points once more, kLanes of them side by side for vector units.
class PointLanes {
 public:
  explicit PointLanes(MatrixView<const float> points)
      : dimensions_(points.cols), values_((points.rows + kLanes - 1) / kLanes, points.cols * kLanes, 0.0f) {
    for (size_t i = 0; i < points.rows; ++i) {
      for (size_t d = 0; d < dimensions_; ++d) values_(i / kLanes, d * kLanes + i % kLanes) = points(i, d);
    }
  }

  // The squared distances of points first .. first + kLanes - 1 to the centre next to each, the first one of
  // equally near ones. centres: [dimensions, groups].
  void Nearest(size_t first, const Matrix<float>& centres, float* least, uint32_t* nearest) const {
    const float* values = values_.row(first / kLanes);
    for (size_t g = 0; g < centres.cols(); ++g) {
      float distance[kLanes] = {};
      for (size_t d = 0; d < dimensions_; ++d) {
        const float centre = centres(d, g);
        const float* value = values + d * kLanes;
        for (size_t i = 0; i < kLanes; ++i) distance[i] += (value[i] - centre) * (value[i] - centre);
      }
      for (size_t i = 0; i < kLanes; ++i) {
        const bool nearer = g == 0 || distance[i] < least[i];
        nearest[i] = nearer ? static_cast<uint32_t>(g) : nearest[i];
        least[i] = nearer ? distance[i] : least[i];
      }
    }
  }

 private:
  size_t dimensions_;
  Matrix<float> values_;  // [blocks of points, dimensions * kLanes]
};

class Run {
 public:
  Run(MatrixView<const float> points, const PointLanes& lanes, size_t groups, uint64_t seed)
      : points_(points),
        lanes_(lanes),
        groups_(groups),
        random_(seed),
        centres_(points.cols, groups),
        group_(points.rows),
        distance_(points.rows) {}

  KmeansResult Finish() {
    Start();
    std::vector<uint32_t> before;
    for (int step = 0; step < kSteps; ++step) {
      Assign();
      if (group_ == before) break;
      before = group_;
      Centre();
    }
    KmeansResult result;
    for (const float distance : distance_) result.inertia += distance;
    result.group = std::move(group_);
    return result;
  }

 private:
  // k-means++, greedy: each next centre is the best of a few points drawn with probability proportional to
  // their squared distance to the centres so far.
  void Start() {
    const size_t n = points_.rows;
    const size_t candidates = 2 + static_cast<size_t>(std::log(static_cast<double>(groups_)));
    std::fill(distance_.begin(), distance_.end(), std::numeric_limits<float>::infinity());
    std::vector<bool> taken(n, false);
    std::vector<float> closer(n), closest(n);
    size_t next = static_cast<size_t>(Uniform(random_) * static_cast<double>(n));
    double total = Closer(next, closest);
    for (size_t g = 0;; ++g) {
      taken[next] = true;
      for (size_t d = 0; d < points_.cols; ++d) centres_(d, g) = points_(next, d);
      distance_ = closest;
      if (g + 1 == groups_) return;
      double least = std::numeric_limits<double>::infinity();
      const double before = total;
      for (size_t candidate = 0; candidate < candidates; ++candidate) {
        const size_t drawn = Draw(taken, before);
        const double after = Closer(drawn, closer);
        if (after < least) {
          least = total = after;
          next = drawn;
          std::swap(closer, closest);
        }
      }
    }
  }

  // closer[i] = squared distance of point i to the nearest centre if point `centre` became one too; returns
  // the sum.
  double Closer(size_t centre, std::vector<float>& closer) const {
    double total = 0;
    for (size_t i = 0; i < points_.rows; ++i) {
      closer[i] = std::min(distance_[i], SquaredDistance(points_.row(i), points_.row(centre), points_.cols));
      total += closer[i];
    }
    return total;
  }

  // A point that is not yet a centre, by its share of `total`; the first one when all coincide with centres.
  size_t Draw(const std::vector<bool>& taken, double total) {
    double left = Uniform(random_) * total;
    size_t drawn = points_.rows;
    for (size_t i = 0; i < points_.rows; ++i) {
      if (taken[i] || (distance_[i] == 0 && total > 0)) continue;
      drawn = i;  // stands when rounding leaves a rest
      left -= distance_[i];
      if (left < 0 || total == 0) break;
    }
    MICA_CHECK(drawn < points_.rows);
    return drawn;
  }

  void Assign() {
    std::vector<size_t> count(groups_, 0);
    for (size_t first = 0; first < points_.rows; first += kLanes) {
      float least[kLanes];
      uint32_t nearest[kLanes];
      lanes_.Nearest(first, centres_, least, nearest);
      for (size_t i = first; i < std::min(points_.rows, first + kLanes); ++i) {
        group_[i] = nearest[i - first];
        distance_[i] = least[i - first];
        ++count[group_[i]];
      }
    }
    for (size_t g = 0; g < groups_; ++g) {
      if (count[g] > 0) continue;
      size_t farthest = points_.rows;
      for (size_t i = 0; i < points_.rows; ++i) {
        if (count[group_[i]] > 1 && (farthest == points_.rows || distance_[i] > distance_[farthest]))
          farthest = i;
      }
      MICA_CHECK(farthest < points_.rows);
      --count[group_[farthest]];
      group_[farthest] = static_cast<uint32_t>(g);
      distance_[farthest] = 0;
      count[g] = 1;
    }
  }

  void Centre() {
    std::vector<double> sum(groups_ * points_.cols, 0.0);
    std::vector<double> count(groups_, 0.0);
    for (size_t i = 0; i < points_.rows; ++i) {
      double* row = sum.data() + group_[i] * points_.cols;
      for (size_t d = 0; d < points_.cols; ++d) row[d] += points_(i, d);
      count[group_[i]] += 1;
    }
    for (size_t g = 0; g < groups_; ++g) {
      for (size_t d = 0; d < points_.cols; ++d)
        centres_(d, g) = static_cast<float>(sum[g * points_.cols + d] / count[g]);
    }
  }

  MatrixView<const float> points_;
  const PointLanes& lanes_;  // the same
  size_t groups_;
  std::mt19937_64 random_;
  Matrix<float> centres_;  // [dimensions, groups]: distances to all centres at once
  std::vector<uint32_t> group_;
  std::vector<float> distance_;  // [n] squared, to the centre of its group
};

}  // namespace

KmeansResult Kmeans(MatrixView<const float> points, size_t groups, uint64_t seed) {
  MICA_CHECK(groups >= 1);
  MICA_CHECK(groups <= points.rows);
  const PointLanes lanes(points);
  std::vector<KmeansResult> results(kRuns);
  ParallelFor(kRuns, [&](size_t run) {
    results[run] = Run(points, lanes, groups, seed * 0x9E3779B97F4A7C15u + run + 1).Finish();
  });
  return *std::min_element(results.begin(), results.end(), [](const KmeansResult& a, const KmeansResult& b) {
    return a.inertia < b.inertia;
  });
}

}  // namespace mica
