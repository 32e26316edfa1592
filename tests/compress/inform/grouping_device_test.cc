// Groups of channels on a CUDA device against the processor's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "compress/inform/grouping.h"
#include "compress/inform/information.h"
#include "compress/inform/spectral.h"
#include "tests/ops/devices.h"

namespace mica {
namespace {

// Scattered blocks of unequal size, which their eigenvalues tell apart: block b has b + 1 shares of channels.
size_t BlockOf(size_t channel, size_t blocks) {
  size_t place = channel * 7 % (blocks * (blocks + 1) / 2), block = 0;
  while (place > block) place -= ++block;
  return block;
}

// Tokens of channels that share a factor with those of their block.
Matrix<float> Sample(size_t tokens, size_t channels, size_t blocks) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  Matrix<float> sample(tokens, channels);
  std::vector<float> factor(blocks);
  for (size_t t = 0; t < tokens; ++t) {
    for (float& value : factor) value = normal(random);
    for (size_t c = 0; c < channels; ++c)
      sample(t, c) = factor[BlockOf(c, blocks)] + 0.8f * normal(random) + 0.1f * static_cast<float>(c % 3);
  }
  return sample;
}

// Affinities of such blocks, blurred.
Matrix<float> Blocks(size_t n, size_t blocks) {
  std::mt19937 random(6);
  std::uniform_real_distribution<float> uniform(-0.15f, 0.15f);
  Matrix<float> affinity(n, n, 0.0f);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < i; ++j) {
      affinity(i, j) = affinity(j, i) =
          (BlockOf(i, blocks) == BlockOf(j, blocks) ? 0.6f : 0.2f) + uniform(random);
    }
  }
  return affinity;
}

class GroupingOn : public OnDevices {};
MICA_OVER_DEVICES(GroupingOn);

// 90 and 256 channels take the dense solver and whole rows, 300 Lanczos and projections; of 2300 a sample is
// scored.
TEST_P(GroupingOn, GroupsAreTheProcessors) {
  for (const size_t n : {90, 256, 300, 2300}) {
    const Matrix<float> affinity = Blocks(n, 5);
    const Array there = CopyTo(device(), affinity);
    for (const GroupingMethod method :
         {GroupingMethod::kSpectral, GroupingMethod::kHierarchical, GroupingMethod::kKmeans}) {
      for (const size_t groups : {0, 3}) {
        if (n == 2300 && groups == 0) continue;
        SCOPED_TRACE(testing::Message() << n << ", " << GroupingMethodName(method) << ", " << groups);
        const Grouping expected = GroupChannels(affinity, method, groups, 7),
                       found = GroupChannels(there.view(), method, groups, 7),
                       again = GroupChannels(there.view(), method, groups, 7);
        EXPECT_EQ(found.groups, expected.groups);
        EXPECT_EQ(found.group, expected.group);
        EXPECT_NEAR(found.silhouette, expected.silhouette, 1e-12);
        EXPECT_EQ(found.group, again.group);
        EXPECT_EQ(found.silhouette, again.silhouette);
      }
    }
  }
}

TEST_P(GroupingOn, EigenvectorsAreTheProcessors) {
  for (const size_t n : {120, 700}) {
    const Matrix<float> affinity = Blocks(n, 4);
    const Matrix<float> expected = LeadingEigenvectors(affinity, 3, 1),
                        found = LeadingEigenvectors(CopyTo(device(), affinity).view(), 3, 1);
    ASSERT_EQ(found.cols(), expected.cols());
    for (size_t c = 0; c < 3; ++c) {
      double dot = 0;
      for (size_t i = 0; i < n; ++i) dot += double{found(i, c)} * expected(i, c);
      EXPECT_NEAR(std::abs(dot), 1, 1e-6) << n << ", " << c;
    }
  }
}

TEST_P(GroupingOn, InformationOfASampleIsTheProcessors) {
  const Matrix<float> sample = Sample(700, 130, 6);
  for (const Estimator estimator :
       {Estimator::kGaussian, Estimator::kCopula, Estimator::kHistogram, Estimator::kKnn}) {
    SCOPED_TRACE(EstimatorName(estimator));
    const Matrix<float> expected = SampledInformation(sample, estimator, 3);
    Array there(130, 130, DType::kF32, device());
    SampledInformation(sample, estimator, 3, there.view());
    const Matrix<float> found = OnHost(there.view());
    double largest = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      largest = std::max<double>(largest, expected.data()[i]);
      ASSERT_NEAR(found.data()[i], expected.data()[i], 1e-5) << i;
    }
    EXPECT_GT(largest, 0.1);
    SampledInformation(sample, estimator, 3, there.view());
    EXPECT_TRUE(SameBytes(found, OnHost(there.view())));
  }
}

}  // namespace
}  // namespace mica
