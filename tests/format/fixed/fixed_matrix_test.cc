#include "format/fixed/fixed_matrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "format/stored_bits.h"
#include "tests/error_message.h"

namespace mica {
namespace {

TEST(ScaleGroups, SplitsEachWidthIntoGroups) {
  // 5 columns of 4 bits, 2 of 16, 3 of 2 and 1 of 0, at most 2 columns a group.
  const std::vector<uint8_t> widths = {4, 4, 4, 4, 4, 16, 16, 2, 2, 2, 0};
  const std::vector<ScaleGroup> groups = ScaleGroups(widths, 2);
  const std::vector<ScaleGroup> expected = {{0, 2, 4, 0}, {2, 2, 4, 1}, {4, 1, 4, 2},  {5, 2, 16, -1},
                                            {7, 2, 2, 3}, {9, 1, 2, 4}, {10, 1, 0, -1}};
  ASSERT_EQ(groups.size(), expected.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    EXPECT_EQ(groups[g].start, expected[g].start) << g;
    EXPECT_EQ(groups[g].count, expected[g].count) << g;
    EXPECT_EQ(groups[g].bits, expected[g].bits) << g;
    EXPECT_EQ(groups[g].scale_row, expected[g].scale_row) << g;
  }
}

TEST(ScaleGroups, RefusesWhatTheFormatDoesNotKnow) {
  EXPECT_THAT(MessageOf([] {
                ScaleGroups({4, 4, 5}, 128);
              }),
              testing::HasSubstr("stored column 2 has width 5"));
  EXPECT_THAT(MessageOf([] {
                ScaleGroups({4, 2, 4}, 128);
              }),
              testing::HasSubstr("width 4 are not contiguous"));
  EXPECT_THAT(MessageOf([] { ScaleGroups({4}, 0); }), testing::HasSubstr("group size is 0"));
}

// Worked by hand: stored columns are original columns 2, 0, 1, 3; widths 3, 3, 16, 0.
TEST(DecodeFixed, HandWorked) {
  FixedMatrix matrix;
  matrix.rows = 2;
  matrix.cols = 4;
  matrix.order = {2, 0, 1, 3};
  matrix.widths = {3, 3, 16, 0};
  matrix.mask = MaskKind::kBitmap;
  matrix.codes = Matrix<uint16_t>(2, 4, uint16_t{0});
  matrix.keep = Matrix<uint8_t>(2, 4, uint8_t{1});
  matrix.scales = Matrix<ScaleCode>(1, 2);
  matrix.zeros = Matrix<uint8_t>(1, 2);
  matrix.codes(0, 0) = 7;
  matrix.codes(0, 1) = 1;
  matrix.codes(0, 2) = ToF16(-1.5f).bits;
  matrix.codes(1, 1) = 6;
  matrix.codes(1, 2) = ToF16(8.0f).bits;
  matrix.keep(1, 0) = 0;
  matrix.scales(0, 0) = ToScaleCode(0.5f);
  matrix.scales(0, 1) = ToScaleCode(0.25f);
  matrix.zeros(0, 0) = 2;
  matrix.zeros(0, 1) = 7;

  Matrix<float> out(2, 4, NAN);
  const std::vector<ScaleGroup> groups = ScaleGroups(matrix.widths, matrix.group_size);
  for (size_t r = 0; r < 2; ++r) DecodeRow(matrix, groups, r, out.row(r));
  EXPECT_EQ(std::vector<float>(out.row(0), out.row(0) + 4), (std::vector<float>{-0.5f, -1.5f, 2.5f, 0.0f}));
  EXPECT_EQ(std::vector<float>(out.row(1), out.row(1) + 4), (std::vector<float>{-0.25f, 8.0f, 0.0f, 0.0f}));
}

TEST(StoredBits, Adds) {
  StoredBits bits{1, 2, 3, 4, 5, 6, 7};
  bits += StoredBits{10, 20, 30, 40, 50, 60, 70};
  EXPECT_EQ(bits.total(), 308u);
  EXPECT_EQ(bits.mask, 44u);
}

}  // namespace
}  // namespace mica
