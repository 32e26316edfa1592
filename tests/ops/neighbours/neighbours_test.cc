#include "ops/neighbours/neighbours.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace mica {
namespace {

// All distances of point p in plane l, sorted: the definition.
float Expected(const std::vector<float>& along, const std::vector<float>& across, size_t p, size_t l) {
  std::vector<float> distances;
  for (size_t q = 0; q < along.size(); ++q) {
    if (q == p) continue;
    distances.push_back(std::max(std::abs(along[q] - along[p]), std::abs(across[q * kNeighbourLanes + l] -
                                                                         across[p * kNeighbourLanes + l])));
  }
  std::sort(distances.begin(), distances.end());
  return distances[kNeighbours - 1];
}

TEST(NeighbourDistances, AgreeWithTheDefinitionOnEveryInstructionSet) {
  for (const size_t points : {5, 6, 17, 100}) {
    std::mt19937 random(static_cast<uint32_t>(points));
    std::normal_distribution<float> normal;
    std::vector<float> along(points), across(points * kNeighbourLanes);
    for (float& value : along) value = std::round(normal(random) * 16.0f) / 16.0f;  // with equal values
    std::sort(along.begin(), along.end());
    for (size_t i = 0; i < across.size(); ++i) {
      // Lanes from independent to a copy of the shared coordinate.
      const float mix = static_cast<float>(i % kNeighbourLanes) / (kNeighbourLanes - 1);
      across[i] = mix * along[i / kNeighbourLanes] + (1 - mix) * normal(random);
    }
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
      SCOPED_TRACE(hwy::TargetName(target));
      hwy::SetSupportedTargetsForTest(target);
      hwy::GetChosenTarget().Update(target);
      std::vector<float> farthest(points * kNeighbourLanes, NAN);
      NeighbourDistances(along.data(), across.data(), points, farthest.data());
      for (size_t p = 0; p < points; ++p) {
        for (size_t l = 0; l < kNeighbourLanes; ++l) {
          ASSERT_EQ(farthest[p * kNeighbourLanes + l], Expected(along, across, p, l))
              << points << ": " << p << ", " << l;
        }
      }
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

}  // namespace
}  // namespace mica
