// A group of one, and how things are dealt to the ranks of larger ones; tests/cli_ranks_test.py has several processes.
#include "device/group.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/matrix.h"

namespace mica {
namespace {

TEST(Group, PartsCoverAllInOrder) {
  for (size_t count : {0, 1, 5, 8, 13824}) {
    for (size_t size : {1, 2, 3, 8, 16}) {
      size_t next = 0, least = count, most = 0;
      for (size_t rank = 0; rank < size; ++rank) {
        const Part part = PartOf(count, rank, size);
        EXPECT_EQ(part.first, next);
        next += part.count;
        least = std::min(least, part.count);
        most = std::max(most, part.count);
      }
      EXPECT_EQ(next, count);
      EXPECT_LE(most - least, 1u);
    }
  }
}

TEST(Group, AloneCopies) {
  const Group& alone = Group::Alone();
  EXPECT_TRUE(alone.alone());
  EXPECT_TRUE(alone.leads());
  Matrix<float> from(2, 3, 7.0f), to(2, 3, 0.0f);
  const std::vector<ConstTensor> sent{std::as_const(from)};
  const std::vector<Tensor> received{to};
  alone.Exchange(sent, received);
  EXPECT_EQ(to(1, 2), 7.0f);
  EXPECT_EQ(alone.Broadcast(0, "text"), "text");
  const std::vector<double> values{1, 2};
  EXPECT_EQ(alone.Gather(values), std::vector<std::vector<double>>{values});
  alone.Barrier();
}

TEST(GroupDeathTest, WhatIsSentIsWhatIsExpected) {
  Matrix<float> from(2, 3, 7.0f), to(2, 2, 0.0f);
  const std::vector<ConstTensor> sent{std::as_const(from)};
  const std::vector<Tensor> received{to};
  EXPECT_DEATH(Group::Alone().Exchange(sent, received), "");
}

}  // namespace
}  // namespace mica
