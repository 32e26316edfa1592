#include "compress/inform/grouping.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "compress/inform/kmeans.h"
#include "compress/inform/linkage.h"
#include "compress/inform/spectral.h"
#include "tests/error_message.h"

namespace mica {
namespace {

constexpr GroupingMethod kMethods[] = {GroupingMethod::kSpectral, GroupingMethod::kHierarchical,
                                       GroupingMethod::kKmeans};

// Channel i belongs to block truth[i]; affinity `within` or `between` plus uniform noise in +-noise, diagonal
// 0.
Matrix<float> Planted(const std::vector<uint32_t>& truth, float within, float between, float noise,
                      uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-noise, noise);
  Matrix<float> affinity(truth.size(), truth.size(), 0.0f);
  for (size_t i = 0; i < truth.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const float base = truth[i] == truth[j] ? within : between;
      affinity(i, j) = affinity(j, i) = std::clamp(base + (noise > 0 ? uniform(random) : 0.0f), 0.0f, 1.0f);
    }
  }
  return affinity;
}

// Blocks of unequal size, scattered, numbered by first channel.
std::vector<uint32_t> Scattered(size_t n, uint32_t blocks) {
  std::vector<uint32_t> truth(n);
  for (size_t i = 0; i < n; ++i) {
    truth[i] = i < blocks ? static_cast<uint32_t>(i)
                          : static_cast<uint32_t>((i * i + i / 3) % (blocks + 1)) % blocks;
  }
  return truth;
}

// Both divide the channels alike, whatever the groups are called.
bool SamePartition(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if ((a[i] == a[j]) != (b[i] == b[j])) return false;
    }
  }
  return true;
}

void ExpectValid(const Grouping& grouping, size_t n) {
  ASSERT_EQ(grouping.group.size(), n);
  uint32_t next = 0;
  for (const uint32_t g : grouping.group) {  // numbered by first channel, so none is empty
    ASSERT_LE(g, next);
    next += g == next;
  }
  EXPECT_EQ(next, grouping.groups);
}

TEST(Grouping, NamesOfMethodsGoBothWays) {
  for (const GroupingMethod method : {GroupingMethod::kSpectral, GroupingMethod::kHierarchical,
                                      GroupingMethod::kKmeans, GroupingMethod::kWaterfill}) {
    EXPECT_EQ(ParseGroupingMethod(GroupingMethodName(method)), method);
  }
  EXPECT_THAT(MessageOf([] { ParseGroupingMethod("dbscan"); }),
              testing::HasSubstr("\"dbscan\" is unknown, expected spectral"));
}

class Methods : public testing::TestWithParam<GroupingMethod> {};
INSTANTIATE_TEST_SUITE_P(All, Methods, testing::ValuesIn(kMethods),
                         [](const auto& info) { return GroupingMethodName(info.param); });

// 90 channels take the dense solver and whole rows, 300 Lanczos and projections.
TEST_P(Methods, RecoverPlantedBlocks) {
  for (const size_t n : {90, 300}) {
    for (const uint32_t blocks : {2u, 5u}) {
      const std::vector<uint32_t> truth = Scattered(n, blocks);
      const Matrix<float> affinity = Planted(truth, 0.6f, 0.2f, 0.15f, 1);
      const Grouping grouping = GroupChannels(affinity, GetParam(), blocks, 7);
      ExpectValid(grouping, n);
      EXPECT_TRUE(SamePartition(grouping.group, truth)) << n << " channels, " << blocks << " blocks";
      EXPECT_GT(grouping.silhouette, 0.4);
    }
  }
}

TEST_P(Methods, ChooseThePlantedNumberOfGroups) {
  const std::pair<size_t, uint32_t> cases[] = {{90, 2}, {90, 5}, {270, 7}};
  for (const auto& [n, blocks] : cases) {
    const std::vector<uint32_t> truth = Scattered(n, blocks);
    const Grouping grouping = GroupChannels(Planted(truth, 0.6f, 0.2f, 0.15f, 2), GetParam(), 0, 3);
    EXPECT_EQ(grouping.groups, blocks) << n;
    EXPECT_TRUE(SamePartition(grouping.group, truth)) << n << " channels, " << blocks << " blocks";
  }
}

// Exact blocks make eigenvalues of high multiplicity and equal distances everywhere; separate ones a graph in
// pieces.
TEST_P(Methods, RecoverExactAndSeparateBlocks) {
  for (const size_t n : {60, 300}) {
    const std::vector<uint32_t> truth = Scattered(n, 6);
    for (const float between : {0.25f, 0.0f}) {
      const Grouping grouping =
          GroupChannels(Planted(truth, 0.5f, between, 0.0f, 0), GetParam(), n == 60 ? 0 : 6, 5);
      EXPECT_EQ(grouping.groups, 6u) << n << " channels, " << between << " between";
      EXPECT_TRUE(SamePartition(grouping.group, truth)) << n << " channels, " << between << " between";
    }
  }
}

TEST_P(Methods, AreDeterministicOnAnyNumberOfThreads) {
  // Blurred, so that small differences would show.
  const Matrix<float> few = Planted(Scattered(80, 4), 0.3f, 0.25f, 0.25f, 4);
  const Matrix<float> many = Planted(Scattered(330, 4), 0.3f, 0.25f, 0.25f, 5);
  const int before = Threads();
  std::vector<Grouping> groupings;
  for (const int threads : {1, 3}) {
    SetThreads(threads);
    groupings.push_back(GroupChannels(few, GetParam(), 0, 11));
    groupings.push_back(GroupChannels(many, GetParam(), 9, 11));
  }
  SetThreads(before);
  for (size_t i = 2; i < groupings.size(); ++i) {
    EXPECT_EQ(groupings[i].group, groupings[i - 2].group);
    EXPECT_EQ(groupings[i].silhouette, groupings[i - 2].silhouette);
  }
}

TEST_P(Methods, DoNotReadTheDiagonal) {
  Matrix<float> affinity = Planted(Scattered(300, 3), 0.5f, 0.2f, 0.2f, 6);
  const Grouping zero = GroupChannels(affinity, GetParam(), 4, 1);
  for (size_t i = 0; i < affinity.rows(); ++i) affinity(i, i) = 1.0f;
  const Grouping one = GroupChannels(affinity, GetParam(), 4, 1);
  EXPECT_TRUE(SamePartition(zero.group, one.group));
  EXPECT_NEAR(zero.silhouette, one.silhouette, 1e-9);
}

TEST_P(Methods, BearFewChannels) {
  const Matrix<float> one(1, 1, 0.0f), two = Planted({0, 1}, 0, 0.3f, 0, 0);
  for (const size_t groups : {0, 1}) {
    EXPECT_THAT(GroupChannels(one, GetParam(), groups, 0).group, testing::ElementsAre(0));
    EXPECT_THAT(GroupChannels(two, GetParam(), groups, 0).group, testing::ElementsAre(0, 0));
  }
  const Grouping both = GroupChannels(two, GetParam(), 2, 0);
  EXPECT_THAT(both.group, testing::ElementsAre(0, 1));
  EXPECT_EQ(both.silhouette, 0);
  const Grouping three = GroupChannels(Planted({0, 1, 0}, 0.9f, 0.1f, 0, 0), GetParam(), 0, 0);
  EXPECT_THAT(three.group, testing::ElementsAre(0, 1, 0));
}

TEST_P(Methods, GiveEveryChannelItsOwnGroupWhenAsked) {
  for (const size_t n : {5, 300}) {
    const Grouping grouping = GroupChannels(Planted(Scattered(n, 2), 0.5f, 0.2f, 0.1f, 7), GetParam(), n, 0);
    ExpectValid(grouping, n);
    EXPECT_EQ(grouping.groups, n);
    EXPECT_EQ(grouping.silhouette, 0);
  }
}

TEST_P(Methods, LeaveNoGroupEmptyAmongIdenticalChannels) {
  for (const size_t n : {20, 300}) {
    for (const float affinity : {1.0f, 0.4f, 0.0f}) {
      const Grouping grouping =
          GroupChannels(Planted(std::vector<uint32_t>(n, 0), affinity, 0, 0, 0), GetParam(), 3, 0);
      ExpectValid(grouping, n);
      EXPECT_EQ(grouping.groups, 3u);
    }
  }
}

// Channels that share nothing with any other (dead ones) beside two blocks.
TEST_P(Methods, BearChannelsWithoutAffinity) {
  for (const size_t n : {40, 300}) {
    std::vector<uint32_t> truth(n);
    for (size_t i = 0; i < n; ++i) truth[i] = i % 2;
    Matrix<float> affinity = Planted(truth, 0.6f, 0.1f, 0.05f, 8);
    for (const size_t dead : {3, 8}) {
      for (size_t j = 0; j < n; ++j) affinity(dead, j) = affinity(j, dead) = 0;
    }
    // The spectral embedding has no place of its own for them: they join a block.
    const size_t groups = GetParam() == GroupingMethod::kSpectral ? 2 : 4;
    const Grouping grouping = GroupChannels(affinity, GetParam(), groups, 0);
    ExpectValid(grouping, n);
    EXPECT_EQ(grouping.group[0], grouping.group[2]);
    EXPECT_EQ(grouping.group[1], grouping.group[5]);
    EXPECT_NE(grouping.group[0], grouping.group[1]);
  }
}

TEST_P(Methods, RefuseMoreGroupsThanChannels) {
  const Matrix<float> affinity(3, 3, 0.5f);
  EXPECT_THAT(MessageOf([&] { GroupChannels(affinity, GetParam(), 4, 0); }),
              testing::HasSubstr("4 groups of 3 channels"));
}

// ---- parts
// -------------------------------------------------------------------------------------------------

// Four channels, distances d01 = 0.1, d23 = 0.2, d02 = 0.8, d03 = 0.6, d12 = 0.9, d13 = 0.7; groups {0, 1}
// and {2, 3}.
Matrix<float> FourChannels() {
  Matrix<float> affinity(4, 4, 1.0f);
  const auto set = [&](size_t i, size_t j, float distance) {
    affinity(i, j) = affinity(j, i) = 1 - distance;
  };
  set(0, 1, 0.1f), set(2, 3, 0.2f), set(0, 2, 0.8f), set(0, 3, 0.6f), set(1, 2, 0.9f), set(1, 3, 0.7f);
  return affinity;
}

TEST(Silhouette, IsWhatOneWorksOutByHand) {
  const Matrix<float> affinity = FourChannels();
  // b: 0.7, 0.8, 0.85, 0.65; a: 0.1, 0.1, 0.2, 0.2.
  const double expected = (0.6 / 0.7 + 0.7 / 0.8 + 0.65 / 0.85 + 0.45 / 0.65) / 4;
  EXPECT_NEAR(Silhouette(affinity, {0, 0, 1, 1}, 2, 0), expected, 1e-6);
  // {0, 1, 3} and 2 alone, which counts 0. a: (0.1 + 0.6) / 2, (0.1 + 0.7) / 2, (0.6 + 0.7) / 2; b: 0.8, 0.9,
  // 0.2.
  const double worse = (0.45 / 0.8 + 0.5 / 0.9 - 0.45 / 0.65) / 4;
  EXPECT_NEAR(Silhouette(affinity, {0, 0, 1, 0}, 2, 0), worse, 1e-6);
  // Three groups: the nearest other one counts. For 0: a 0.1, b min(0.8, 0.6); for 1: min(0.9, 0.7).
  EXPECT_NEAR(Silhouette(affinity, {0, 0, 1, 2}, 3, 0), (0.5 / 0.6 + 0.6 / 0.7) / 4, 1e-6);
  EXPECT_EQ(Silhouette(affinity, {0, 0, 0, 0}, 1, 0), 0);
}

TEST(Silhouette, SamplesManyChannels) {
  const std::vector<uint32_t> truth = Scattered(2300, 3);
  const Matrix<float> affinity = Planted(truth, 0.6f, 0.2f, 0.15f, 9);
  const double one = Silhouette(affinity, truth, 3, 1), two = Silhouette(affinity, truth, 3, 2);
  EXPECT_NE(one, two);
  EXPECT_EQ(one, Silhouette(affinity, truth, 3, 1));
  // The distances average 0.4 and 0.8.
  EXPECT_NEAR(one, 0.5, 0.01);
  EXPECT_NEAR(two, 0.5, 0.01);
}

TEST(AverageLinkage, IsWhatOneWorksOutByHand) {
  const AverageLinkage linkage(FourChannels());
  EXPECT_THAT(linkage.Heights(),
              testing::ElementsAre(testing::FloatEq(0.1f), testing::FloatEq(0.2f), testing::FloatEq(0.75f)));
  EXPECT_THAT(linkage.Cut(4), testing::ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(linkage.Cut(3), testing::ElementsAre(0, 0, 1, 2));
  EXPECT_THAT(linkage.Cut(2), testing::ElementsAre(0, 0, 1, 1));
  EXPECT_THAT(linkage.Cut(1), testing::ElementsAre(0, 0, 0, 0));
}

// Merges the two clusters of least mean distance until `groups` are left, straight from the definition.
std::vector<uint32_t> NaiveLinkage(const Matrix<float>& affinity, size_t groups) {
  std::vector<std::vector<size_t>> clusters(affinity.rows());
  for (size_t i = 0; i < affinity.rows(); ++i) clusters[i] = {i};
  while (clusters.size() > groups) {
    size_t best_a = 0, best_b = 1;
    double least = INFINITY;
    for (size_t a = 0; a < clusters.size(); ++a) {
      for (size_t b = a + 1; b < clusters.size(); ++b) {
        double sum = 0;
        for (const size_t i : clusters[a]) {
          for (const size_t j : clusters[b]) sum += 1.0 - affinity(i, j);
        }
        const double mean = sum / static_cast<double>(clusters[a].size() * clusters[b].size());
        if (mean < least) least = mean, best_a = a, best_b = b;
      }
    }
    clusters[best_a].insert(clusters[best_a].end(), clusters[best_b].begin(), clusters[best_b].end());
    clusters.erase(clusters.begin() + static_cast<ptrdiff_t>(best_b));
  }
  std::vector<uint32_t> group(affinity.rows());
  for (size_t c = 0; c < clusters.size(); ++c) {
    for (const size_t i : clusters[c]) group[i] = static_cast<uint32_t>(c);
  }
  return group;
}

TEST(AverageLinkage, AgreesWithTheDefinition) {
  for (const uint32_t seed : {1u, 2u, 3u}) {
    const Matrix<float> affinity = Planted(Scattered(45, 5), 0.5f, 0.4f, 0.4f, seed);
    const AverageLinkage linkage(affinity);
    for (const size_t groups : {2, 3, 7, 20, 40}) {
      EXPECT_TRUE(SamePartition(linkage.Cut(groups), NaiveLinkage(affinity, groups)))
          << seed << ", " << groups;
    }
    EXPECT_TRUE(std::ranges::is_sorted(linkage.Heights()));
  }
}

TEST(Kmeans, IsWhatOneWorksOutByHand) {
  Matrix<float> points(6, 2);
  const float values[] = {0, 0, 0, 2, 10, 0, 10, 2, 11, 1, 0, 1};
  std::copy_n(values, 12, points.data());
  const KmeansResult result = Kmeans(points, 2, 0);
  EXPECT_TRUE(SamePartition(result.group, {0, 0, 1, 1, 1, 0}));
  // Centres (0, 1) and (31 / 3, 1): 2 + 2 + 2 / 3.
  EXPECT_NEAR(result.inertia, 4 + 2.0 / 3, 1e-5);
  EXPECT_EQ(Kmeans(points, 6, 0).inertia, 0);
}

TEST(Kmeans, FindsManyClustersFromSeededStarts) {
  std::mt19937 random(10);
  std::normal_distribution<float> normal(0, 0.05f);
  Matrix<float> points(400, 3);
  std::vector<uint32_t> truth(400);
  for (size_t i = 0; i < 400; ++i) {
    truth[i] = i % 16;
    for (size_t d = 0; d < 3; ++d)
      points(i, d) =
          static_cast<float>(truth[i] >> d & 1) * 2 + (truth[i] >= 8 && d == 0 ? 5.0f : 0) + normal(random);
  }
  EXPECT_TRUE(SamePartition(Kmeans(points, 16, 1).group, truth));
}

// Lanczos against the dense solver's answer to a problem of known spectrum: exact blocks of size m have
// eigenvectors constant on blocks, so the projector on the first `blocks` of them has entries 1 / m inside
// blocks.
TEST(LeadingEigenvectors, SpanTheBlocks) {
  for (const size_t n : {120, 600}) {
    std::vector<uint32_t> truth(n);
    for (size_t i = 0; i < n; ++i) truth[i] = i % 4;
    const Matrix<float> affinity = Planted(truth, 0.7f, 0.1f, 0, 0);
    const Matrix<float> vectors = LeadingEigenvectors(affinity, 4, 3);
    ASSERT_EQ(vectors.cols(), 4u);
    for (size_t i = 0; i < n; i += 7) {
      for (size_t j = 0; j < n; j += 5) {
        double projector = 0;
        for (size_t c = 0; c < 4; ++c) projector += double{vectors(i, c)} * vectors(j, c);
        ASSERT_NEAR(projector, truth[i] == truth[j] ? 4.0 / static_cast<double>(n) : 0.0, 1e-5) << n;
      }
    }
  }
}

}  // namespace
}  // namespace mica
