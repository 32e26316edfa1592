#include "ops/attention/cached_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "tests/ops/devices.h"
#include "tests/ops/random_values.h"

namespace mica {
namespace {

class CachedAttentionTest : public OnDevices {};

Matrix<float> Random(size_t rows, size_t cols, uint32_t seed) {
  Matrix<float> values(rows, cols);
  const std::vector<float> random = RandomValues(rows * cols, seed);
  std::copy(random.begin(), random.end(), values.data());
  return values;
}

// Keys and values on a device, whose rows that no token has are NaN or the largest integers.
struct Cache {
  Cache(size_t kv_heads, size_t capacity, size_t head_dim, int bits, Device device)
      : capacity(capacity),
        k(kv_heads * capacity, head_dim, bits == 16 ? DType::kF16 : DType::kI8, device),
        v(kv_heads * capacity, head_dim, k.dtype(), device) {
    for (Array* array : {&k, &v}) Fill(*array, 0x7F);
    if (bits == 16) return;
    k_scales.Resize(kv_heads * capacity, 1, DType::kF32, device);
    v_scales.Resize(kv_heads * capacity, 1, DType::kF32, device);
    for (Array* array : {&k_scales, &v_scales}) Fill(*array, 0xFF);
  }
  static void Fill(Array& array, int value) {
    const size_t bytes = array.rows() * array.cols() * DTypeBytes(array.dtype());
    if (array.device().is_cuda()) {
      FillBytes(array.device(), array.view().data, value, bytes);
    } else {
      std::memset(array.view().data, value, bytes);
    }
  }
  CachedKeys view() { return {k.view(), v.view(), k_scales.view(), v_scales.view(), capacity}; }
  Cache OnHost() const {
    Cache copy = *this;
    return copy;
  }
  Cache(const Cache& other) : capacity(other.capacity) {
    k = CopyTo(Device::Cpu(), other.k.view());
    v = CopyTo(Device::Cpu(), other.v.view());
    if (!other.k_scales.empty()) k_scales = CopyTo(Device::Cpu(), other.k_scales.view());
    if (!other.v_scales.empty()) v_scales = CopyTo(Device::Cpu(), other.v_scales.view());
  }
  size_t capacity;
  Array k, v, k_scales, v_scales;
};

struct Case {
  size_t tokens, past, heads, kv_heads, head_dim, sliding;
  float soft_cap;
};

TEST_P(CachedAttentionTest, EqualsTheOracle) {
  const Case cases[] = {{1, 0, 1, 1, 8, 0, 0},     {1, 5, 4, 4, 64, 0, 0},    {1, 300, 6, 2, 128, 0, 0},
                        {2, 127, 4, 1, 32, 0, 30}, {17, 1, 8, 2, 96, 0, 0},   {70, 130, 2, 1, 256, 0, 0},
                        {1, 200, 2, 2, 64, 17, 0}, {33, 40, 4, 2, 64, 16, 5}, {9, 3, 2, 1, 64, 500, 0}};
  for (const Case& c : cases) {
    for (const int bits : {16, 8}) {
      SCOPED_TRACE(testing::Message() << c.tokens << " behind " << c.past << ", " << c.heads << " heads of "
                                      << c.head_dim << ", " << bits << " bits");
      Cache cache(c.kv_heads, c.past + c.tokens + 3, c.head_dim, bits, device());
      for (const auto& [first, count] : {std::pair<size_t, size_t>{0, c.past}, {c.past, c.tokens}}) {
        if (count == 0) continue;
        const Matrix<float> k = Random(c.kv_heads * count, c.head_dim, 1 + static_cast<uint32_t>(first)),
                            v = Random(c.kv_heads * count, c.head_dim, 2 + static_cast<uint32_t>(first));
        AppendKeys(CopyTo(device(), k).view(), CopyTo(device(), v).view(), first, cache.view());
      }
      const CachedAttentionShape shape = {c.tokens, c.past, c.heads, c.kv_heads, c.head_dim};
      const Matrix<float> q = Random(c.heads * c.tokens, c.head_dim, 3);
      const Array q_there = CopyTo(device(), q);
      Framed out(device(), c.tokens, c.heads * c.head_dim, DType::kF32, 1, 2);
      const float factor = 1.0f / std::sqrt(static_cast<float>(c.head_dim));
      CachedAttention(shape, {q_there.view(), factor, c.soft_cap, c.sliding}, cache.view(), out.view());
      Synchronize(device());
      EXPECT_TRUE(out.FrameIsWhole());
      Cache here = cache.OnHost();
      Matrix<float> expected(c.tokens, c.heads * c.head_dim);
      CachedAttentionRef(shape, {q, factor, c.soft_cap, c.sliding}, here.view(), expected);
      const Array got = CopyTo(Device::Cpu(), out.view());
      for (size_t t = 0; t < c.tokens; ++t) {
        for (size_t i = 0; i < expected.cols(); ++i)
          ASSERT_NEAR(got.view().host<float>()(t, i), expected(t, i), 2e-5) << t << ", " << i;
      }
    }
  }
}

TEST_P(CachedAttentionTest, SixteenBitsAreThoseOfF16AndEightAreWithinHalfAScale) {
  const Matrix<float> k = Random(2 * 5, 64, 7), v = Random(2 * 5, 64, 8);
  for (const int bits : {16, 8}) {
    Cache cache(2, 9, 64, bits, device());
    AppendKeys(CopyTo(device(), k).view(), CopyTo(device(), v).view(), 2, cache.view());
    Synchronize(device());
    const Cache here = cache.OnHost();
    for (size_t head = 0; head < 2; ++head) {
      for (size_t t = 0; t < 5; ++t) {
        float largest = 0;
        for (size_t i = 0; i < 64; ++i) largest = std::max(largest, std::abs(k(head * 5 + t, i)));
        for (size_t i = 0; i < 64; ++i) {
          const size_t row = head * 9 + 2 + t;
          const float value = k(head * 5 + t, i);
          if (bits == 16) {
            ASSERT_EQ(here.k.view().host<F16>()(row, i).bits, ToF16(value).bits);
          } else {
            const auto* bytes = reinterpret_cast<const int8_t*>(here.k.view().data);
            ASSERT_NEAR(here.k_scales.view().host<float>()(row, 0) * static_cast<float>(bytes[row * 64 + i]), value,
                        largest / 253);
          }
        }
      }
    }
  }
}

MICA_OVER_DEVICES(CachedAttentionTest);

}  // namespace
}  // namespace mica
