#include "base/threads.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "base/error.h"

namespace mica {
namespace {

TEST(ParallelFor, RunsEveryIndexOnce) {
  for (const int threads : {1, 2, 5}) {
    SetThreads(threads);
    std::vector<int> runs(1000, 0);
    ParallelFor(runs.size(), [&](size_t i) { ++runs[i]; });
    EXPECT_EQ(std::count(runs.begin(), runs.end(), 1), 1000);
  }
  SetThreads(0);
}

TEST(ParallelFor, RethrowsTheFailure) {
  SetThreads(2);
  EXPECT_THROW(ParallelFor(100,
                           [](size_t i) {
                             if (i == 7) Fail("index {}", i);
                           }),
               Error);
  SetThreads(0);
}

TEST(ParallelFor, NestedLoopsRun) {
  SetThreads(2);
  std::vector<std::vector<int>> runs(8, std::vector<int>(8, 0));
  ParallelFor(8, [&](size_t i) { ParallelFor(8, [&](size_t j) { ++runs[i][j]; }); });
  for (const auto& row : runs) EXPECT_EQ(std::accumulate(row.begin(), row.end(), 0), 8);
  SetThreads(0);
}

TEST(SetThreads, RefusesNonsense) {
  EXPECT_THROW(SetThreads(-1), Error);
  EXPECT_THROW(SetThreads(5000), Error);
}

}  // namespace
}  // namespace mica
