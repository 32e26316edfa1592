#include "ops/gram/gram_rows.h"

#include <algorithm>
#include <bit>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/gram/gram_rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

// What both functions compute, for processors without 128-bit vectors.
void PackBf16(const uint16_t* x, size_t stride, size_t tokens, size_t cols, uint16_t* packed, float* sum,
              uint16_t* top) {
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t c = 0; c < cols; ++c) {
      const uint16_t bits = x[t * stride + c];
      packed[c * tokens + t] = bits;
      sum[c] += ToFloat(BF16{bits});
      top[c] = std::max<uint16_t>(top[c], bits & 0x7FFFu);
    }
  }
}

void PackFp32(const float* x, size_t stride, size_t tokens, size_t cols, const float* row_scale,
              const float* weight, float* packed, float* sum, uint32_t* top) {
  for (size_t t = 0; t < tokens; ++t) {
    for (size_t c = 0; c < cols; ++c) {
      const float value = x[t * stride + c] * row_scale[t];
      packed[c * tokens + t] = value;
      sum[c] += x[t * stride + c] * weight[t];
      top[c] = std::max(top[c], std::bit_cast<uint32_t>(value) & 0x7FFFFFFFu);
    }
  }
}

#else

// Blocks of 8 x 8 (BF16) and 4 x 4 (FP32) fill 128-bit vectors; wider ones would need shuffles across lanes,
// and the packing is a few percent of the product it feeds.
void PackBf16(const uint16_t* x, size_t stride, size_t tokens, size_t cols, uint16_t* packed, float* sum,
              uint16_t* top) {
  const hn::Full128<uint16_t> d16;
  const hn::Full128<uint32_t> d32;
  const hn::Full128<uint64_t> d64;
  const hn::Full128<float> df;
  using V = hn::Vec<decltype(d16)>;
  const V magnitude = hn::Set(d16, 0x7FFF);
  const V zero = hn::Zero(d16);
  for (size_t t = 0; t < tokens; t += 8) {
    for (size_t c = 0; c < cols; c += 8) {
      V r[8];
      V highest = hn::LoadU(d16, top + c);
      auto low = hn::LoadU(df, sum + c);
      auto high = hn::LoadU(df, sum + c + 4);
      for (size_t i = 0; i < 8; ++i) {
        r[i] = hn::LoadU(d16, x + (t + i) * stride + c);
        highest = hn::Max(highest, hn::And(r[i], magnitude));
        // A BF16 value is the upper half of its FP32 value.
        low = hn::Add(low, hn::BitCast(df, hn::InterleaveLower(d16, zero, r[i])));
        high = hn::Add(high, hn::BitCast(df, hn::InterleaveUpper(d16, zero, r[i])));
      }
      hn::StoreU(highest, d16, top + c);
      hn::StoreU(low, df, sum + c);
      hn::StoreU(high, df, sum + c + 4);
      V a[8], b[8];
      for (size_t i = 0; i < 4; ++i) {  // pairs of tokens
        a[2 * i] = hn::InterleaveLower(d16, r[2 * i], r[2 * i + 1]);
        a[2 * i + 1] = hn::InterleaveUpper(d16, r[2 * i], r[2 * i + 1]);
      }
      for (size_t i = 0; i < 2; ++i) {  // fours of tokens
        for (size_t h = 0; h < 2; ++h) {
          const auto first = hn::BitCast(d32, a[4 * i + h]);
          const auto second = hn::BitCast(d32, a[4 * i + 2 + h]);
          b[4 * i + 2 * h] = hn::BitCast(d16, hn::InterleaveLower(d32, first, second));
          b[4 * i + 2 * h + 1] = hn::BitCast(d16, hn::InterleaveUpper(d32, first, second));
        }
      }
      for (size_t j = 0; j < 4; ++j) {
        const auto first = hn::BitCast(d64, b[j]);
        const auto second = hn::BitCast(d64, b[4 + j]);
        hn::StoreU(hn::BitCast(d16, hn::InterleaveLower(d64, first, second)), d16,
                   packed + (c + 2 * j) * tokens + t);
        hn::StoreU(hn::BitCast(d16, hn::InterleaveUpper(d64, first, second)), d16,
                   packed + (c + 2 * j + 1) * tokens + t);
      }
    }
  }
}

void PackFp32(const float* x, size_t stride, size_t tokens, size_t cols, const float* row_scale,
              const float* weight, float* packed, float* sum, uint32_t* top) {
  const hn::Full128<float> df;
  const hn::Full128<uint32_t> d32;
  const hn::Full128<uint64_t> d64;
  using V = hn::Vec<decltype(df)>;
  const auto magnitude = hn::Set(d32, 0x7FFFFFFFu);
  for (size_t t = 0; t < tokens; t += 4) {
    for (size_t c = 0; c < cols; c += 4) {
      V r[4];
      auto highest = hn::LoadU(d32, top + c);
      V total = hn::LoadU(df, sum + c);
      for (size_t i = 0; i < 4; ++i) {
        const V value = hn::LoadU(df, x + (t + i) * stride + c);
        total = hn::Add(total, hn::Mul(value, hn::Set(df, weight[t + i])));
        r[i] = hn::Mul(value, hn::Set(df, row_scale[t + i]));
        highest = hn::Max(highest, hn::And(hn::BitCast(d32, r[i]), magnitude));
      }
      hn::StoreU(highest, d32, top + c);
      hn::StoreU(total, df, sum + c);
      const auto pair = [&](V lower, V upper) {
        return std::pair(hn::BitCast(d64, hn::InterleaveLower(df, lower, upper)),
                         hn::BitCast(d64, hn::InterleaveUpper(df, lower, upper)));
      };
      const auto [low01, high01] = pair(r[0], r[1]);
      const auto [low23, high23] = pair(r[2], r[3]);
      hn::StoreU(hn::BitCast(df, hn::InterleaveLower(d64, low01, low23)), df, packed + (c + 0) * tokens + t);
      hn::StoreU(hn::BitCast(df, hn::InterleaveUpper(d64, low01, low23)), df, packed + (c + 1) * tokens + t);
      hn::StoreU(hn::BitCast(df, hn::InterleaveLower(d64, high01, high23)), df,
                 packed + (c + 2) * tokens + t);
      hn::StoreU(hn::BitCast(df, hn::InterleaveUpper(d64, high01, high23)), df,
                 packed + (c + 3) * tokens + t);
    }
  }
}

#endif

void AddWide(const float* tile, size_t n, double* sum) {
  const hn::ScalableTag<double> dd;
  const hn::Rebind<float, decltype(dd)> df;
  for (size_t i = 0; i < n; i += hn::Lanes(dd)) {
    hn::StoreU(hn::Add(hn::LoadU(dd, sum + i), hn::PromoteTo(dd, hn::LoadU(df, tile + i))), dd, sum + i);
  }
}

}  // namespace
}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(PackBf16);
HWY_EXPORT(PackFp32);
HWY_EXPORT(AddWide);

void PackTransposed(const BF16* x, size_t stride, size_t tokens, size_t cols, BF16* packed, float* sum,
                    uint16_t* top) {
  static_assert(sizeof(BF16) == sizeof(uint16_t));
  HWY_DYNAMIC_DISPATCH(PackBf16)
  (reinterpret_cast<const uint16_t*>(x), stride, tokens, cols, reinterpret_cast<uint16_t*>(packed), sum, top);
}

void PackTransposed(const float* x, size_t stride, size_t tokens, size_t cols, const float* row_scale,
                    const float* weight, float* packed, float* sum, uint32_t* top) {
  HWY_DYNAMIC_DISPATCH(PackFp32)(x, stride, tokens, cols, row_scale, weight, packed, sum, top);
}

void AddToDouble(const float* tile, size_t n, double* sum) { HWY_DYNAMIC_DISPATCH(AddWide)(tile, n, sum); }

}  // namespace mica
#endif
