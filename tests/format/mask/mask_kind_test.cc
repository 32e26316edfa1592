#include "format/mask/mask_kind.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/mask/sparsity_pattern.h"
#include "tests/error_message.h"

namespace mica {
namespace {

TEST(MaskKind, Names) {
  for (const MaskKind& kind : kMaskKinds) {
    MaskKind parsed;
    EXPECT_TRUE(MaskKind::Parse(kind.name, parsed));
    EXPECT_EQ(parsed, kind);
  }
  MaskKind parsed;
  EXPECT_FALSE(MaskKind::Parse("3:4", parsed));
  EXPECT_EQ(MaskNames(), "none, bitmap, 2:4 or 4:8");
  EXPECT_EQ(CellNames(), "2:4 or 4:8");
}

// A cell's bits number all its patterns, and no fewer would: 6 patterns take 3 bits, 70 take 7.
TEST(MaskKind, CellBitsAreTheFewestThatDo) {
  for (const MaskKind& kind : kMaskKinds) {
    if (kind.cols == 0) continue;
    size_t patterns = 0;
    for (unsigned map = 0; map < (1u << kind.cols); ++map)
      patterns += static_cast<size_t>(std::popcount(map)) == kind.kept ? 1 : 0;
    EXPECT_LE(patterns, size_t{1} << kind.cell_bits) << kind.name;
    EXPECT_GT(patterns, size_t{1} << (kind.cell_bits - 1)) << kind.name;
    EXPECT_EQ(MaskKind::Cells(static_cast<int>(kind.kept), static_cast<int>(kind.cols)), kind);
    EXPECT_EQ(kind.name, std::to_string(kind.kept) + ":" + std::to_string(kind.cols));
  }
}

TEST(MaskKind, RowBitsByHand) {
  EXPECT_EQ(MaskKind::kNone.RowBits(100), 0u);
  EXPECT_EQ(MaskKind::kBitmap.RowBits(100), 100u);
  EXPECT_EQ(MaskKind::Cells(2, 4).RowBits(103), 25u * 3 + 3);
  EXPECT_EQ(MaskKind::Cells(4, 8).RowBits(103), 12u * 7 + 7);
  EXPECT_EQ(MaskKind::Cells(4, 8).RowBytes(103), 12u);
}

TEST(MaskKind, PrunedOfACellAndOfWhatIsLeft) {
  EXPECT_EQ(MaskKind::Cells(2, 4).Pruned(4), 2u);
  EXPECT_EQ(MaskKind::Cells(2, 4).Pruned(3), 1u);
  EXPECT_EQ(MaskKind::Cells(4, 8).Pruned(7), 3u);
  EXPECT_EQ(MaskKind::kBitmap.Pruned(7), 0u);
}

TEST(SparsityPattern, Mask) {
  EXPECT_EQ(MaskOf({}), MaskKind::kNone);
  EXPECT_EQ(MaskOf({0.3, 0, 0}), MaskKind::kBitmap);
  EXPECT_EQ(MaskOf({0, 2, 4}), MaskKind::Cells(2, 4));
  EXPECT_EQ(MaskOf({0.5, 4, 8}), MaskKind::Cells(4, 8));
  EXPECT_EQ(MessageOf([] { MaskOf({0, 1, 4}); }), "sparsity pattern is 1:4, expected 2:4 or 4:8");
  EXPECT_THAT(MessageOf([] { MaskOf({1.0, 0, 0}); }), testing::HasSubstr("sparsity is 1"));
}

TEST(SparsityPattern, Names) {
  EXPECT_EQ(PatternName({}), "none");
  EXPECT_EQ(PatternName({0.3, 0, 0}), "unstructured");
  for (const MaskKind& kind : kMaskKinds) {
    SparsityPattern pattern;
    EXPECT_EQ(ParseCells(kind.name, pattern), kind.cols > 0) << kind.name;
    if (kind.cols == 0) continue;
    EXPECT_EQ(PatternName(pattern), kind.name);
    EXPECT_EQ(MaskOf(pattern), kind);
    EXPECT_EQ(pattern.rate, 1 - static_cast<double>(kind.kept) / static_cast<double>(kind.cols));
  }
}

}  // namespace
}  // namespace mica
