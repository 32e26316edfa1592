#include "ops/blas_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hwy/targets.h>

namespace mica {
namespace {

TEST(BlasKernels, FallbacksGiveWayToWhatTheProcessorCanDo) {
  for (const char* fallback : {"Prescott", "Core2", "Nehalem"}) {
    EXPECT_STREQ(BetterBlasKernels(fallback, HWY_AVX3 | HWY_AVX2 | HWY_SSE4), "SkylakeX") << fallback;
    EXPECT_STREQ(BetterBlasKernels(fallback, HWY_AVX2 | HWY_SSE4), "Haswell") << fallback;
    EXPECT_EQ(BetterBlasKernels(fallback, HWY_SSE4), nullptr) << fallback;
  }
}

TEST(BlasKernels, AChoiceOfOurTimeStays) {
  for (const char* chosen : {"Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids", "a later one"}) {
    EXPECT_EQ(BetterBlasKernels(chosen, HWY_AVX3 | HWY_AVX2), nullptr) << chosen;
  }
}

}  // namespace
}  // namespace mica
