// How tokens are dealt to ranks, and sums over blocks on one rank.
#include "compress/calibrate/token_blocks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "compress/calibrate/ordered_sum.h"

namespace mica {
namespace {

// A rank of a group that never says anything.
class Silent final : public Group {
 public:
  using Group::Group;

 protected:
  void ExchangeBytes(Device, std::span<const ConstBytes>, std::span<const Bytes>) const override {}
  void BroadcastBytes(Device, size_t, Bytes) const override {}
};

TEST(TokenBlocks, AreWholeRunsAndHaveEveryTokenOnce) {
  for (const auto& [windows, window] : std::vector<std::pair<size_t, size_t>>{{1, 2048}, {9, 2048}, {128, 2048}, {16, 4096}, {30, 300}, {3, 9000}}) {
    for (const size_t size : {1, 2, 3, 5, 8, 11}) {
      std::vector<int> seen(windows * window);
      size_t of_all = 0;
      for (size_t rank = 0; rank < size; ++rank) {
        const Silent group(rank, size);
        const TokenBlocks blocks(windows * window, window, group);
        EXPECT_LE(blocks.count(), TokenBlocks::kMost);
        for (size_t step = 0; step < blocks.steps(); ++step) {
          const TokenRange mine = blocks.Mine(step);
          EXPECT_EQ(mine.empty(), rank >= blocks.ranks(step));
          EXPECT_EQ(mine.first % blocks.run_tokens(), 0u);
          for (size_t t = 0; t < mine.count; ++t) ++seen[mine.first + t];
        }
        of_all += blocks.MineTokens();
        // The same blocks whatever the number of ranks.
        const TokenBlocks alone(windows * window, window);
        for (size_t block = 0; block < blocks.count(); ++block) {
          EXPECT_EQ(blocks.Block(block).first, alone.Block(block).first);
          EXPECT_EQ(blocks.Block(block).count, alone.Block(block).count);
        }
      }
      EXPECT_EQ(of_all, windows * window);
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<std::ptrdiff_t>(seen.size()));
    }
  }
}

TEST(TokenBlocks, OfARunEach) {
  const TokenBlocks blocks(20 * 2048, 2048, Group::Alone(), 0);
  EXPECT_EQ(blocks.count(), 20u);
  EXPECT_EQ(blocks.Block(19).first, 19u * 2048);
}

TEST(TokenBlocks, ValuesOfARank) {
  const Silent second(1, 2);
  const TokenBlocks blocks(4 * 2048, 2048, second);
  std::vector<int> all(4 * 2048);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<int>(i / 2048);
  const std::vector<int> mine = blocks.MineOf(std::span<const int>(all));
  ASSERT_EQ(mine.size(), 2u * 2048);
  EXPECT_EQ(mine.front(), 1);
  EXPECT_EQ(mine.back(), 3);
}

TEST(OrderedSum, AddsInTheOrderOfBlocks) {
  const TokenBlocks blocks(3 * 2048, 2048);
  OrderedSum sum(blocks, 1, 2, Device::Cpu());
  OrderedValues values(blocks);
  // In another order the small one is lost in neither or both.
  for (const float value : {0x1p24f, 1.0f, -0x1p24f}) {
    Array block(1, 2, DType::kF32);
    block.view().host<float>()(0, 0) = value;
    block.view().host<float>()(0, 1) = 2;
    sum.Add(std::move(block));
    const std::vector<double> of_block{value};
    values.Add(of_block);
  }
  const Array all = sum.Take();
  EXPECT_EQ(all.view().host<float>()(0, 0), (0x1p24f + 1.0f) - 0x1p24f);
  EXPECT_EQ(all.view().host<float>()(0, 1), 6.0f);
  EXPECT_EQ(values.Sum()[0], 1.0);
}

}  // namespace
}  // namespace mica
