#include "ops/gram/gram.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/gram/gram_rows.h"
#include "ops/tile/tile_product.h"

namespace mica {
namespace {

// Runs `body` once for each instruction set of this processor.
template <typename Body>
void ForEachTarget(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(target);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

// Distinct in sign, exponent and mantissa over the block.
float Pattern(size_t t, size_t c) {
  const float sign = (t + c) % 3 == 0 ? -1.0f : 1.0f;
  return sign * static_cast<float>(1 + (t * 7 + c * 13) % 101) * (c % 2 == 0 ? 0.125f : 4.0f);
}

TEST(GramRows, PackBf16OnEveryInstructionSet) {
  constexpr size_t kTokens = 24, kCols = 16, kStride = 19;
  std::vector<BF16> x(kTokens * kStride, BF16{0x7FC0});  // NaN behind each row: must not be read
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t c = 0; c < kCols; ++c) x[t * kStride + c] = ToBF16(Pattern(t, c));
  }
  ForEachTarget([&] {
    std::vector<BF16> packed(kTokens * kCols, BF16{0x7FC0});
    std::vector<float> sum(kCols, 1.5f);
    std::vector<uint16_t> top(kCols, 0);
    PackTransposed(x.data(), kStride, kTokens, kCols, packed.data(), sum.data(), top.data());
    for (size_t c = 0; c < kCols; ++c) {
      float expected_sum = 1.5f, expected_top = 0;
      for (size_t t = 0; t < kTokens; ++t) {
        const float value = ToFloat(x[t * kStride + c]);
        ASSERT_EQ(packed[c * kTokens + t].bits, x[t * kStride + c].bits) << t << ", " << c;
        expected_sum += value;
        expected_top = std::max(expected_top, std::abs(value));
      }
      EXPECT_EQ(sum[c], expected_sum);
      EXPECT_EQ(ToFloat(BF16{top[c]}), expected_top);
    }
  });
}

TEST(GramRows, PackFp32OnEveryInstructionSet) {
  constexpr size_t kTokens = 16, kCols = 24, kStride = 27;
  std::vector<float> x(kTokens * kStride, std::numeric_limits<float>::quiet_NaN());
  std::vector<float> row_scale(kTokens), weight(kTokens);
  for (size_t t = 0; t < kTokens; ++t) {
    for (size_t c = 0; c < kCols; ++c) x[t * kStride + c] = Pattern(t, c);
    row_scale[t] = static_cast<float>(t % 4);
    weight[t] = row_scale[t] * row_scale[t];
  }
  ForEachTarget([&] {
    std::vector<float> packed(kTokens * kCols, std::numeric_limits<float>::quiet_NaN());
    std::vector<float> sum(kCols, 0.0f);
    std::vector<uint32_t> top(kCols, 0);
    PackTransposed(x.data(), kStride, kTokens, kCols, row_scale.data(), weight.data(), packed.data(),
                   sum.data(), top.data());
    for (size_t c = 0; c < kCols; ++c) {
      float expected_sum = 0, expected_top = 0;
      for (size_t t = 0; t < kTokens; ++t) {
        const float value = x[t * kStride + c];
        ASSERT_EQ(packed[c * kTokens + t], value * row_scale[t]) << t << ", " << c;
        expected_sum += value * weight[t];
        expected_top = std::max(expected_top, std::abs(value * row_scale[t]));
      }
      EXPECT_EQ(sum[c], expected_sum);
      EXPECT_EQ(std::bit_cast<float>(top[c]), expected_top);
    }
  });
}

TEST(GramRows, NanAndInfinityRankAboveNumbers) {
  ForEachTarget([] {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      std::vector<BF16> narrow(64, ToBF16(3e38f));
      std::vector<float> wide(64, 3e38f), ones(8, 1.0f), sum(8), packed(64);
      narrow[8 * 3 + 5] = ToBF16(bad);
      wide[8 * 3 + 5] = bad;
      std::vector<BF16> packed_narrow(64);
      std::vector<uint16_t> top16(8, 0);
      std::vector<uint32_t> top32(8, 0);
      PackTransposed(narrow.data(), 8, 8, 8, packed_narrow.data(), sum.data(), top16.data());
      PackTransposed(wide.data(), 8, 8, 8, ones.data(), ones.data(), packed.data(), sum.data(), top32.data());
      for (size_t c = 0; c < 8; ++c) {
        EXPECT_EQ(std::isfinite(ToFloat(BF16{top16[c]})), c != 5);
        EXPECT_EQ(std::isfinite(std::bit_cast<float>(top32[c])), c != 5);
      }
    }
  });
}

TEST(GramRows, AddToDoubleOnEveryInstructionSet) {
  ForEachTarget([] {
    std::vector<float> tile(48);
    std::vector<double> sum(48);
    for (size_t i = 0; i < 48; ++i) {
      tile[i] = Pattern(i, i % 5);
      sum[i] = 1e-9 * static_cast<double>(i);
    }
    AddToDouble(tile.data(), 48, sum.data());
    for (size_t i = 0; i < 48; ++i) EXPECT_EQ(sum[i], 1e-9 * static_cast<double>(i) + double{tile[i]});
  });
}

// Small integers: every product and sum is exact, so both ways must give the same number.
TEST(Gram, IsTheSameWithoutNativeBf16) {
  Matrix<BF16> x(300, 130);
  for (size_t t = 0; t < x.rows(); ++t) {
    for (size_t c = 0; c < x.cols(); ++c) x(t, c) = ToBF16(static_cast<float>((t * 5 + c * 3) % 17) - 8.0f);
  }
  Gram native(130), widened(130);
  native.Add(x);
  AllowNativeBf16(false);
  widened.Add(x);
  AllowNativeBf16(true);
  for (size_t i = 0; i < 130; ++i) {
    for (size_t j = 0; j < 130; ++j) {
      double expected = 0;
      for (size_t t = 0; t < x.rows(); ++t) expected += double{ToFloat(x(t, i))} * ToFloat(x(t, j));
      ASSERT_EQ(native.Sum(i, j), expected);
      ASSERT_EQ(widened.Sum(i, j), expected);
    }
  }
}

}  // namespace
}  // namespace mica
