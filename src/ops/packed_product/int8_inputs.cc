// This file is compiled once for each instruction set (Highway); the best one is chosen at run time.
#include "ops/packed_product/int8_inputs.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/error.h"
#include "base/threads.h"
#include "device/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/packed_product/int8_inputs.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

#ifndef MICA_OPS_PACKED_PRODUCT_INT8_INPUTS
#define MICA_OPS_PACKED_PRODUCT_INT8_INPUTS
namespace mica {

// A block whose largest value is below this counts as zeros: 127 over it must be finite.
inline constexpr float kLeastLargest = 1e-30f;

}  // namespace mica
#endif

HWY_BEFORE_NAMESPACE();
namespace mica::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// Every step of a value is one correctly rounded operation, and maxima and sums of integers have no order:
// all instruction sets give the same. Largest |x|.
float LargestOf(const float* x, size_t count) {
  const hn::ScalableTag<float> d;
  const size_t step = hn::Lanes(d);
  auto largest = hn::Zero(d);
  size_t i = 0;
  for (; i + step <= count; i += step) largest = hn::Max(largest, hn::Abs(hn::LoadU(d, x + i)));
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; i < count; ++i) result = std::max(result, x[i] < 0 ? -x[i] : x[i]);
  return result;
}

// out = x inverse rounded to the nearest, ties to even; returns the sum.
int32_t RoundBlock(const float* x, size_t count, float inverse, int8_t* out) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const size_t step = hn::Lanes(d);
  auto sum = hn::Zero(di);
  const auto factor = hn::Set(d, inverse);
  size_t i = 0;
  for (; i + step <= count; i += step) {
    const auto value = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), factor));
    sum = hn::Add(sum, value);
    hn::StoreU(hn::DemoteTo(d8, value), d8, out + i);
  }
  int32_t result = hn::GetLane(hn::SumOfLanes(di, sum));
  const hn::CappedTag<float, 1> d1;
  for (; i < count; ++i) {
    const int32_t value = hn::GetLane(hn::NearestInt(hn::Set(d1, x[i] * inverse)));
    out[i] = static_cast<int8_t>(value);
    result += value;
  }
  return result;
}

void RoundToken(const float* x, std::span<const float> factors, std::span<const uint32_t> order,
                std::span<const uint32_t> begin, float* scaled, int8_t* values, float* scales,
                int32_t* sums) {
  const size_t blocks = begin.size() - 1, cols = begin[blocks];
  if (order.empty() && !factors.empty()) {
    for (size_t c = 0; c < cols; ++c) scaled[c] = x[c] * factors[c];
  } else {
    for (size_t c = 0; c < cols; ++c) {
      const float value = x[order.empty() ? c : order[c]];
      scaled[c] = factors.empty() ? value : value * factors[c];
    }
  }
  for (size_t b = 0; b < blocks; ++b) {
    const size_t first = begin[b], count = begin[b + 1] - first;
    const float largest = LargestOf(scaled + first, count);
    const bool zeros = largest < kLeastLargest;
    sums[b] = RoundBlock(scaled + first, count, zeros ? 0.0f : 127.0f / largest, values + first);
    scales[b] = zeros ? 0.0f : largest / 127.0f;
  }
}

// -a b + c, rounded once on all instruction sets.
template <typename D, typename V>
V NegativeFma(D d, V a, V b, V c) {
#if HWY_NATIVE_FMA
  return hn::NegMulAdd(a, b, c);
#else
  HWY_ALIGN float of_a[hn::MaxLanes(D())], of_b[hn::MaxLanes(D())], of_c[hn::MaxLanes(D())];
  hn::Store(a, d, of_a);
  hn::Store(b, d, of_b);
  hn::Store(c, d, of_c);
  for (size_t i = 0; i < hn::Lanes(d); ++i) of_c[i] = std::fma(-of_a[i], of_b[i], of_c[i]);
  return hn::Load(d, of_c);
#endif
}

// One block of kDigitBlock values, 64-byte aligned.
void RoundDigits(const float* x, int8_t* values, float* scale, int32_t* sum) {
  const hn::CappedTag<float, kDigitBlock> d;
  const hn::RebindToSigned<decltype(d)> di;
  const hn::Rebind<int8_t, decltype(d)> d8;
  auto largest_of = hn::Zero(d);
  for (size_t i = 0; i < kDigitBlock; i += hn::Lanes(d))
    largest_of = hn::Max(largest_of, hn::Abs(hn::Load(d, x + i)));
  const float largest = hn::GetLane(hn::MaxOfLanes(d, largest_of));
  const bool zeros = largest < kLeastLargest;
  const float of_first = zeros ? 0.0f : largest / 127.0f;
  const auto first_scale = hn::Set(d, of_first);
  const auto to_first = hn::Set(d, zeros ? 0.0f : 127.0f / largest);
  const auto to_second = hn::Set(d, zeros ? 0.0f : 254.0f / of_first);
  auto sums = hn::Zero(di);
  for (size_t i = 0; i < kDigitBlock; i += hn::Lanes(d)) {
    const auto value = hn::Load(d, x + i);
    const auto first = hn::NearestInt(hn::Mul(value, to_first));
    const auto left = NegativeFma(d, first_scale, hn::ConvertTo(d, first), value);
    const auto second = hn::NearestInt(hn::Mul(left, to_second));
    hn::StoreU(hn::DemoteTo(d8, first), d8, values + i);
    hn::StoreU(hn::DemoteTo(d8, second), d8, values + kDigitBlock + i);
    sums = hn::Add(sums, hn::Add(hn::Mul(first, hn::Set(di, 254)), second));
  }
  *scale = of_first / 254.0f;
  *sum = hn::GetLane(hn::SumOfLanes(di, sums));
}

using DigitRounder = void (*)(const float*, int8_t*, float*, int32_t*);
DigitRounder ChosenDigitRounder() { return RoundDigits; }

using TokenRounder = void (*)(const float*, std::span<const float>, std::span<const uint32_t>,
                              std::span<const uint32_t>, float*, int8_t*, float*, int32_t*);
TokenRounder ChosenRounder() { return RoundToken; }

}  // namespace
}  // namespace mica::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mica {

HWY_EXPORT(ChosenRounder);
HWY_EXPORT(ChosenDigitRounder);

void RoundToInt8(MatrixView<const float> x, std::span<const float> factors, std::span<const uint32_t> order,
                 std::span<const uint32_t> begin, size_t stride, Int8Inputs& out) {
  MICA_CHECK(begin.size() >= 2);
  const size_t blocks = begin.size() - 1, cols = begin[blocks];
  MICA_CHECK(stride >= cols);
  out.stride = stride;
  out.values.resize(x.rows * stride);
  out.scales.resize(x.rows * blocks);
  out.sums.resize(x.rows * blocks);
  const auto round = HWY_DYNAMIC_DISPATCH(ChosenRounder)();
  ParallelFor(x.rows, [&](size_t t) {
    float* scaled = Scratch<float, 73>(cols);
    int8_t* values = out.values.data() + t * stride;
    round(x.row(t), factors, order, begin, scaled, values, out.scales.data() + t * blocks,
          out.sums.data() + t * blocks);
    std::fill(values + cols, values + stride, int8_t{0});
  });
}

void RoundToDigits(MatrixView<const float> x, std::span<const uint16_t> order,
                   std::span<const int8_t> exponents, int exponent, std::span<const DigitColumns> blocks,
                   DigitInputs& out) {
  out.tokens = x.rows;
  out.blocks = blocks.size();
  out.values.resize(x.rows * blocks.size() * 2 * kDigitBlock);
  out.scales.resize(x.rows * blocks.size());
  out.sums.resize(x.rows * blocks.size());
  const auto round = HWY_DYNAMIC_DISPATCH(ChosenDigitRounder)();
  const auto power = [](int e) { return std::bit_cast<float>(static_cast<uint32_t>(127 + e) << 23); };
  const float of_all = power(exponent);
  ParallelFor(x.rows, [&](size_t t) {
    const float* const row = x.row(t);
    alignas(64) float values[kDigitBlock];
    for (size_t k = 0; k < blocks.size(); ++k) {
      const auto [first, count] = blocks[k];
      for (size_t i = 0; i < count; ++i) values[i] = row[order.empty() ? first + i : order[first + i]];
      for (size_t i = 0; i < count; ++i)
        values[i] *= exponents.empty() ? of_all : power(exponents[first + i]);
      std::fill(values + count, values + kDigitBlock, 0.0f);
      const size_t at = t * blocks.size() + k;
      round(values, out.values.data() + at * 2 * kDigitBlock, &out.scales[at], &out.sums[at]);
    }
  });
}

}  // namespace mica
#endif
