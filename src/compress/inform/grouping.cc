#include "compress/inform/grouping.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <utility>

#include "base/error.h"
#include "base/matrix.h"
#include "base/system.h"
#include "compress/inform/kmeans.h"
#include "compress/inform/linkage.h"
#include "compress/inform/spectral.h"
#include "device/array.h"
#include "ops/census/pairs.h"
#include "ops/linalg/arrange.h"
#include "ops/linalg/linalg.h"

namespace mica {
namespace {

constexpr std::array<std::pair<GroupingMethod, const char*>, 4> kMethodNames = {
    {{GroupingMethod::kSpectral, "spectral"},
     {GroupingMethod::kHierarchical, "hierarchical"},
     {GroupingMethod::kKmeans, "kmeans"},
     {GroupingMethod::kWaterfill, "waterfill"}}};

constexpr size_t kMostGroups = 20;  // when the number is chosen
constexpr size_t kSilhouetteChannels = 2048;
constexpr size_t kWholeRows = 256;  // k-means on the affinity's rows themselves up to here
constexpr size_t kProjections = 128;

// Divides `channels` into exactly `groups`.
using Divide = std::function<std::vector<uint32_t>(size_t groups)>;

// Rows of unit length of the first k eigenvectors; zero rows stay.
Divide BySpectrum(ConstTensor affinity, size_t most_groups, uint64_t seed) {
  auto vectors = std::make_shared<Matrix<float>>(LeadingEigenvectors(affinity, most_groups, seed));
  return [vectors, seed](size_t groups) {
    const size_t dimensions = std::min(groups, vectors->cols());
    Matrix<float> points(vectors->rows(), dimensions);
    for (size_t i = 0; i < points.rows(); ++i) {
      double square = 0;
      for (size_t d = 0; d < dimensions; ++d) square += double{(*vectors)(i, d)} * (*vectors)(i, d);
      // Below this a row is the solver's noise: a channel without affinity to speak of.
      const double scale = square > 1e-20 ? 1.0 / std::sqrt(square) : 0.0;
      for (size_t d = 0; d < dimensions; ++d) points(i, d) = static_cast<float>((*vectors)(i, d) * scale);
    }
    return Kmeans(points, groups, seed).group;
  };
}

// Merges follow one another, so they are the processor's whatever the device.
Divide ByLinkage(ConstTensor affinity) {
  Array here;
  if (affinity.device.is_cuda()) {
    here = CopyTo(Device::Cpu(), affinity);
    affinity = here.view();
  }
  auto linkage = std::make_shared<AverageLinkage>(affinity.host<float>());
  return [linkage](size_t groups) { return linkage->Cut(groups); };
}

// Distances between rows survive a random projection to 128 signs within some 10 % (Johnson, Lindenstrauss).
Divide ByRows(ConstTensor affinity, uint64_t seed) {
  const size_t n = affinity.rows;
  auto points = std::make_shared<Matrix<float>>();
  if (n <= kWholeRows) {
    *points = Matrix<float>(n, n);
    Copy(affinity, *points);
    for (size_t i = 0; i < n; ++i) (*points)(i, i) = 1.0f;
  } else {
    Matrix<float> signs(n, kProjections);
    std::mt19937_64 random(seed);
    const float scale = 1.0f / std::sqrt(static_cast<float>(kProjections));
    for (size_t i = 0; i < signs.size(); i += 64) {
      const uint64_t bits = random();
      for (size_t b = 0; b < 64; ++b) signs.data()[i + b] = (bits >> b & 1) != 0 ? scale : -scale;
    }
    *points = Matrix<float>(n, kProjections);
    if (affinity.device.is_cuda()) {
      const Array there = CopyTo(affinity.device, signs);
      Array projected(n, kProjections, DType::kF32, affinity.device);
      Gemm(false, false, 1.0f, affinity, there.view(), 0.0f, projected.view());
      Copy(projected.view(), *points);
    } else {
      Gemm(false, false, 1.0f, affinity, signs, 0.0f, *points);
    }
    const std::vector<float> diagonal = DiagonalOf(affinity);
    for (size_t i = 0; i < n; ++i) {
      for (size_t d = 0; d < kProjections; ++d) (*points)(i, d) += (1.0f - diagonal[i]) * signs(i, d);
    }
  }
  return [points, seed](size_t groups) { return Kmeans(*points, groups, seed).group; };
}

// Numbers groups by their first channel.
void Renumber(std::vector<uint32_t>& group, size_t groups) {
  std::vector<uint32_t> number(groups, std::numeric_limits<uint32_t>::max());
  uint32_t used = 0;
  for (uint32_t& g : group) {
    if (number[g] == std::numeric_limits<uint32_t>::max()) number[g] = used++;
    g = number[g];
  }
  MICA_CHECK(used == groups);
}

Grouping Divided(ConstTensor affinity, const Divide& divide, size_t groups, uint64_t seed) {
  Grouping grouping{divide(groups), groups, 0};
  Renumber(grouping.group, groups);
  grouping.silhouette = Silhouette(affinity, grouping.group, groups, seed);
  return grouping;
}

}  // namespace

GroupingMethod ParseGroupingMethod(const std::string& name) {
  for (const auto& [method, known] : kMethodNames) {
    if (name == known) return method;
  }
  Fail("grouping \"{}\" is unknown, expected spectral, hierarchical, kmeans or waterfill", name);
}

const char* GroupingMethodName(GroupingMethod method) {
  for (const auto& [known, name] : kMethodNames) {
    if (method == known) return name;
  }
  MICA_CHECK(false);
}

double Silhouette(ConstTensor affinity, const std::vector<uint32_t>& group, size_t groups, uint64_t seed) {
  const size_t n = affinity.rows;
  MICA_CHECK(affinity.cols == n);
  MICA_CHECK(group.size() == n);
  if (groups < 2) return 0;
  std::vector<double> members(groups, 0.0);
  for (const uint32_t g : group) members[g] += 1;
  std::vector<uint32_t> scored(n);
  std::iota(scored.begin(), scored.end(), 0u);
  if (n > kSilhouetteChannels) {  // the first of a Fisher-Yates shuffle
    std::mt19937_64 random(seed);
    for (size_t i = 0; i < kSilhouetteChannels; ++i) std::swap(scored[i], scored[i + random() % (n - i)]);
    scored.resize(kSilhouetteChannels);
  }
  const Matrix<double> distances = GroupDistances(affinity, scored, group, groups);
  const std::vector<float> diagonal = DiagonalOf(affinity);
  std::vector<double> score(scored.size(), 0.0);
  for (size_t s = 0; s < scored.size(); ++s) {
    const uint32_t i = scored[s], own_group = group[i];
    if (members[own_group] < 2) continue;
    const double own = (distances(s, own_group) - (1.0 - diagonal[i])) / (members[own_group] - 1);
    double other = std::numeric_limits<double>::infinity();
    for (size_t g = 0; g < groups; ++g) {
      if (g != own_group) other = std::min(other, distances(s, g) / members[g]);
    }
    const double larger = std::max(own, other);
    score[s] = larger > 0 ? (other - own) / larger : 0.0;
  }
  return std::accumulate(score.begin(), score.end(), 0.0) / static_cast<double>(score.size());
}

Grouping GroupChannels(ConstTensor affinity, GroupingMethod method, size_t groups, uint64_t seed) {
  const size_t n = affinity.rows;
  MICA_CHECK(n > 0);
  MICA_CHECK(affinity.cols == n);
  MICA_CHECK(method != GroupingMethod::kWaterfill);
  if (groups > n)
    Fail("grouping: {} groups of {} channels, expected at most one group a channel; ask for fewer groups",
         groups, n);
  if (groups == 1 || (groups == 0 && n <= 2)) return {std::vector<uint32_t>(n, 0), 1, 0};

  if (groups == n) {
    Grouping alone{std::vector<uint32_t>(n), n, 0};
    std::iota(alone.group.begin(), alone.group.end(), 0u);
    return alone;
  }

  const size_t most_groups = groups != 0 ? groups : std::min(kMostGroups, n - 1);
  Divide divide;
  switch (method) {
    case GroupingMethod::kSpectral:
      divide = BySpectrum(affinity, most_groups, seed);
      break;
    case GroupingMethod::kHierarchical:
      divide = ByLinkage(affinity);
      break;
    default:
      divide = ByRows(affinity, seed);
  }
  if (groups != 0) return Divided(affinity, divide, groups, seed);
  Grouping best;
  for (size_t count = 2; count <= most_groups; ++count) {
    ThrowIfInterrupted();
    Grouping grouping = Divided(affinity, divide, count, seed);
    if (best.groups == 0 || grouping.silhouette > best.silhouette) best = std::move(grouping);
  }
  return best;
}

}  // namespace mica
